import {
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { createStaging, type Gpu, GpuLostError, openGpu, readBuffer } from "../../lib/gpu/mod.ts";

const STORAGE = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
const REQUEST = { label: "words", owner: "test", size: 64, usage: STORAGE };
const EMPTY = { name: "empty", code: "@compute @workgroup_size(1) fn main() {}", access: [] };

/** A read whose map is already asked for. */
async function startRead(gpu: Gpu, source: GPUBuffer): Promise<Promise<ArrayBuffer>[]> {
  const staging = await createStaging(gpu, 64);
  const encoder = gpu.device.createCommandEncoder();
  staging.copy(encoder, source, 0, 64, 0);
  gpu.device.queue.submit([encoder.finish()]);
  return [staging.read()];
}

/** Everything that can be asked of a device later says the same. */
async function assertAllFail(
  gpu: Gpu,
  source: GPUBuffer,
  type: new () => Error,
  message: string,
): Promise<void> {
  assertThrows(() => gpu.check(), type, message);
  for (
    const ask of [
      () => gpu.memory.allocate(REQUEST),
      () => gpu.pipelines.compile(EMPTY),
      () => readBuffer(gpu, source, 0, 64),
      () => gpu.guard(Promise.resolve(1)),
      // Not an unhandled rejection either.
      () => gpu.guard(Promise.reject(new Error("another one"))),
      () => gpu.guard(new Promise(() => {})),
    ]
  ) await assertRejects(ask, type, message);
}

Deno.test("destroy() of the device rejects what is pending and everything later with one GpuLostError", async () => {
  const gpu = await openGpu();
  const { buffer } = await gpu.memory.allocate(REQUEST);
  const pending = [
    ...await startRead(gpu, buffer),
    readBuffer(gpu, buffer, 0, 64),
    gpu.guard(new Promise(() => {})),
    gpu.pipelines.compile(EMPTY),
  ];
  gpu.device.destroy();
  const errors = await Promise.all(pending.map((promise) => promise.then(() => undefined, (error) => error)));
  for (const error of errors.slice(0, 3)) {
    assertInstanceOf(error, GpuLostError);
    assertEquals(error.name, "GpuLostError");
    assertEquals(
      error.message,
      "The GPU device is lost: it was destroyed. Open it again with openGpu and load the model again",
    );
  }
  // What needs no more of the device may still come out well.
  if (errors[3]) assertInstanceOf(errors[3], GpuLostError);
  await assertAllFail(gpu, buffer, GpuLostError, "The GPU device is lost: it was destroyed");
  assertEquals(gpu.memory.holders().activations ?? 0, 64, "only the staging buffer that the test holds");
  gpu[Symbol.dispose]();
});

Deno.test("destroy() of the device ends an allocation that is under way without a trace", async () => {
  const gpu = await openGpu();
  const pending = gpu.memory.allocate(REQUEST);
  gpu.device.destroy();
  await pending.then(({ release }) => release(), (error) => assertInstanceOf(error, GpuLostError));
  assertEquals(gpu.memory.bytes, 0);
  gpu[Symbol.dispose]();
});

Deno.test("dispose() rejects what is pending and everything later", async () => {
  const gpu = await openGpu();
  const { buffer } = await gpu.memory.allocate(REQUEST);
  const [pending] = await startRead(gpu, buffer);
  gpu[Symbol.dispose]();
  await assertRejects(() => pending, GpuLostError, "was disposed of");
  assertThrows(() => gpu.check(), GpuLostError, "The GPU device was disposed of: open it again with openGpu");
  await assertRejects(() => readBuffer(gpu, buffer, 0, 64), Error, "was disposed of");
  await assertRejects(() => gpu.pipelines.compile(EMPTY), GpuLostError, "was disposed of");
});

Deno.test("guard() rejects and check() throws after a submitted command was invalid", async () => {
  using gpu = await openGpu();
  const { buffer } = await gpu.memory.allocate(REQUEST);
  const waiting = gpu.guard(new Promise(() => {}));
  const encoder = gpu.device.createCommandEncoder();
  encoder.clearBuffer(buffer, 0, 4096);
  gpu.device.queue.submit([encoder.finish()]);
  const error = await assertRejects(() => waiting, Error, "The GPU rejected a command: ");
  assertStringIncludes(error.message, "4096");
  await assertAllFail(gpu, buffer, Error, error.message);
});

Deno.test("guard() passes results and errors through as long as the device is well", async () => {
  using gpu = await openGpu();
  assertEquals(await gpu.guard(Promise.resolve("result")), "result");
  await assertRejects(() => gpu.guard(Promise.reject(new SyntaxError("its own"))), SyntaxError, "its own");
  gpu.check();
});
