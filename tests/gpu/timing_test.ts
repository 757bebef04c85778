import { assert, assertEquals, assertGreater, assertRejects } from "@std/assert";
import { createRecorder, createTimer, type Gpu, openGpu, readBuffer, type Timer } from "../../lib/gpu/mod.ts";
import { sharedGpu } from "../harness/kernel_case.ts";

const gpu = await sharedGpu();

const COUNT = `@group(0) @binding(0) var<uniform> params: vec4<u32>;
@group(0) @binding(1) var<storage, read_write> calls: array<u32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var x = id.x;
  for (var i = 0u; i < params.x; i++) { x = x * 1664525u + 1013904223u; }
  if (x == 1u) { calls[1] = x; }
  if (id.x == 0u) { calls[0] += 1u; }
}`;

/** A kernel of so many workgroups, each of so many rounds, that counts its calls. */
async function counter(gpu: Gpu, workgroups: number, rounds: number) {
  const usage = GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
  const allocate = (use: number) =>
    gpu.memory.allocate({ label: "counter", owner: "timing test", size: 16, usage: usage | use });
  const uniform = await allocate(GPUBufferUsage.UNIFORM);
  const calls = await allocate(GPUBufferUsage.STORAGE);
  gpu.device.queue.writeBuffer(uniform.buffer, 0, new Uint32Array([rounds, 0, 0, 0]));
  gpu.device.queue.writeBuffer(calls.buffer, 0, new Uint32Array(4));
  const { pipeline, layout } = await gpu.pipelines.compile({ name: "count", code: COUNT, access: ["write"] });
  const entries = [uniform, calls].map(({ buffer }, binding) => ({ binding, resource: { buffer } }));
  const bindings = gpu.device.createBindGroup({ layout, entries });
  return {
    record: (recorder: ReturnType<typeof createRecorder>, name: string) =>
      recorder.dispatch(name, pipeline, bindings, [workgroups, 1, 1]),
    buffer: calls.buffer,
    calls: async () => new Uint32Array(await readBuffer(gpu, calls.buffer, 0, 4))[0],
    release: () => [uniform, calls].forEach((allocation) => allocation.release()),
  };
}

/** One submit of calls by name. */
function submit(
  timer: Timer | undefined,
  calls: readonly [Awaited<ReturnType<typeof counter>>, string][],
): void {
  const recorder = createRecorder(gpu, timer);
  for (const [kernel, name] of calls) kernel.record(recorder, name);
  gpu.device.queue.submit([recorder.finish()]);
}

const ignore = !gpu.features.timestamps;

Deno.test({
  name: "createTimer() tells kernels apart by their time, longest first",
  ignore,
  fn: async () => {
    const short = await counter(gpu, 1, 1);
    const long = await counter(gpu, 10_000, 1000);
    // A driver may finish compiling at the first call.
    submit(undefined, [[short, "short"]]);
    const timer = await createTimer(gpu, 8);
    submit(timer, [[short, "short"], [long, "long"], [short, "short"], [short, "short"]]);
    const times = await timer.read();
    assertEquals(times.map(({ name, count }) => ({ name, count })), [
      { name: "long", count: 1 },
      { name: "short", count: 3 },
    ]);
    assertGreater(times[1].milliseconds, 0);
    assertGreater(times[0].milliseconds, times[1].milliseconds);
    assertEquals(await timer.read(), []);
    assertEquals([await short.calls(), await long.calls()], [4, 1]);
    timer.dispose();
    short.release();
    long.release();
    assertEquals([gpu.memory.holders().timing, gpu.memory.holders()["timing test"]], [undefined, undefined]);
  },
});

Deno.test({
  name: "createTimer() adds up submits until it is read, and leaves untimed what it has no room for",
  ignore,
  fn: async () => {
    const kernel = await counter(gpu, 1, 1);
    const timer = await createTimer(gpu, 5);
    for (let i = 0; i < 2; i++) submit(timer, [[kernel, "a"], [kernel, "b"]]);
    submit(timer, [[kernel, "c"], [kernel, "c"], [kernel, "c"]]);
    const counts = (await timer.read()).map(({ name, count }) => [name, count]);
    assertEquals(counts.sort(), [["a", 2], ["b", 2], ["c", 1]]);
    assertEquals(await kernel.calls(), 7);
    submit(timer, [[kernel, "d"]]);
    assertEquals((await timer.read()).map(({ name, count }) => [name, count]), [["d", 1]]);
    timer.dispose();
    kernel.release();
  },
});

Deno.test({
  name: "createTimer() times more dispatches than a query set holds",
  ignore,
  fn: async () => {
    const kernel = await counter(gpu, 1, 1);
    const timer = await createTimer(gpu, 2100);
    submit(timer, Array.from({ length: 2100 }, (_, i) => [kernel, i < 2048 ? "first set" : "second set"]));
    const times = await timer.read();
    assertEquals(times.map(({ name, count }) => [name, count]), [["first set", 2048], ["second set", 52]]);
    for (const { milliseconds } of times) {
      assert(milliseconds > 0 && milliseconds < 10_000, `${milliseconds} ms`);
    }
    gpu.check();
    timer.dispose();
    kernel.release();
  },
});

Deno.test("createTimer() says so on a device without timestamps", async () => {
  const adapter = await navigator.gpu.requestAdapter();
  const device = await adapter!.requestDevice();
  using plain = await openGpu({ device });
  await assertRejects(
    () => createTimer(plain),
    Error,
    "This device has no timestamp-query: kernels cannot be timed",
  );
  device.destroy();
});

Deno.test("createRecorder() keeps the order of dispatches and copies", async () => {
  const kernel = await counter(gpu, 1, 1);
  const copies = await gpu.memory.allocate({
    label: "copies",
    owner: "timing test",
    size: 16,
    usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
  });
  const recorder = createRecorder(gpu);
  for (const calls of [0, 1, 2]) {
    for (let i = 0; i < calls; i++) kernel.record(recorder, "count");
    recorder.encoder().copyBufferToBuffer(kernel.buffer, 0, copies.buffer, calls * 4, 4);
  }
  gpu.device.queue.submit([recorder.finish()]);
  assertEquals([...new Uint32Array(await readBuffer(gpu, copies.buffer, 0, 12))], [0, 1, 3]);
  copies.release();
  kernel.release();
});
