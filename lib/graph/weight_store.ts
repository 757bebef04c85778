// The buffers of weights: shared, counted handles, freed with their last user.

import type { Gpu, GpuAllocation } from "../gpu/mod.ts";
import { storageBytes, type Weight, type WeightPart, weightParts } from "./weight.ts";

/** Buffers of a model's weights. */
export interface WeightStore {
  /** The device they are on. */
  readonly gpu: Gpu;
  /** Bytes of all of them. */
  readonly bytes: number;
  /** Whether the last user is gone. */
  readonly freed: boolean;
  /**
   * Allocates the buffers of a weight.
   *
   * @throws {GpuMemoryError} when it does not fit; the store still frees what it got.
   * @throws {Error} when the weight has buffers already, or the last user is gone.
   */
  allocate(weight: Weight): Promise<void>;
  /**
   * Writes consecutive elements, in storage type, from `element` on. Elements are written in order.
   *
   * @throws {RangeError} when they are not inside of the weight, or begin within a word that was not begun.
   */
  write(weight: Weight, element: number, bytes: Uint8Array<ArrayBuffer>): void;
  /** Waits until what was written is on the device: until then the host holds a copy of it. */
  flush(): Promise<void>;
  /** The buffer of a part. */
  buffer(weight: Weight, part: number): GPUBuffer;
  /** Parts of a weight. */
  parts(weight: Weight): readonly WeightPart[];
  /**
   * Counts one more user.
   *
   * @throws {Error} when the last one is gone.
   */
  retain(): void;
  /** Counts one user less; the last one frees the buffers. */
  release(): void;
}

/** Said to who comes after the last user. */
export const FREED = "The model was disposed of, its weights are no longer on the GPU: load it again";

/** Makes an empty store with one user. */
export function createWeightStore(gpu: Gpu): WeightStore {
  const held = new Map<
    string,
    { parts: WeightPart[]; buffers: GpuAllocation[]; tails: (Tail | undefined)[] }
  >();
  let users = 1;
  const find = (weight: Weight) => {
    const entry = held.get(weight.name);
    if (!entry) {
      throw new Error(
        users === 0 ? FREED : `Weight ${weight.name} is not on the GPU`,
      );
    }
    return entry;
  };
  return {
    gpu,
    get bytes() {
      let sum = 0;
      for (const { buffers } of held.values()) for (const buffer of buffers) sum += buffer.size;
      return sum;
    },
    get freed() {
      return users === 0;
    },
    async allocate(weight: Weight): Promise<void> {
      if (users === 0) throw new Error(FREED);
      if (held.has(weight.name)) throw new Error(`Weight ${weight.name} is on the GPU already`);
      const parts = weightParts(
        weight,
        Math.min(gpu.limits.maxStorageBufferBindingSize, gpu.limits.maxBufferSize),
      );
      const buffers: GpuAllocation[] = [];
      held.set(weight.name, { parts, buffers, tails: [] });
      for (const part of parts) {
        buffers.push(
          await gpu.memory.allocate({
            label: `weight ${weight.name}`,
            owner: "weights",
            size: Math.ceil(part.rows * weight.columns * storageBytes(weight.dtype) / 4) * 4,
            usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC,
          }),
        );
      }
    },
    write(weight: Weight, element: number, bytes: Uint8Array<ArrayBuffer>): void {
      const size = storageBytes(weight.dtype);
      const entry = find(weight);
      const { parts, buffers } = entry;
      const end = element + bytes.byteLength / size;
      if (!Number.isInteger(end) || element < 0 || end > weight.rows * weight.columns) {
        throw new RangeError(
          `Cannot write elements ${element} to ${end} of weight ${weight.name}: it has ${
            weight.rows * weight.columns
          }`,
        );
      }
      parts.forEach((part, i) => {
        const first = part.first * weight.columns;
        const last = first + part.rows * weight.columns;
        const from = Math.max(first, element);
        const to = Math.min(last, end);
        if (from >= to) return;
        const slice = bytes.subarray((from - element) * size, (to - element) * size);
        entry.tails[i] = writeWords(
          gpu.device.queue,
          buffers[i].buffer,
          (from - first) * size,
          slice,
          entry.tails[i],
        );
      });
    },
    flush(): Promise<void> {
      gpu.device.queue.submit([]);
      return gpu.guard(gpu.device.queue.onSubmittedWorkDone().then(() => {}));
    },
    buffer: (weight, part) => find(weight).buffers[part].buffer,
    parts: (weight) => find(weight).parts,
    retain(): void {
      if (users === 0) throw new Error(FREED);
      users++;
    },
    release(): void {
      if (users === 0 || --users > 0) return;
      for (const { buffers } of held.values()) for (const buffer of buffers) buffer.release();
      held.clear();
    },
  };
}

/** The two bytes after the last whole word written to a buffer, when a write ended on half a word. */
interface Tail {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/**
 * `writeBuffer` wants multiples of 4 bytes, and f16 tensors may have an odd number of elements. Weights are written in
 * order, so the half word that one write ends on is remembered for the next.
 */
function writeWords(
  queue: GPUQueue,
  buffer: GPUBuffer,
  offset: number,
  bytes: Uint8Array<ArrayBuffer>,
  tail: Tail | undefined,
): Tail | undefined {
  let start = offset;
  let data = bytes;
  if (start % 4 !== 0) {
    if (tail?.offset !== start - 2) {
      throw new RangeError(`Cannot write a weight from byte ${offset} on: weights are written in order`);
    }
    data = new Uint8Array(bytes.byteLength + 2);
    data.set(tail.bytes);
    data.set(bytes, 2);
    start -= 2;
  }
  const rest = data.byteLength % 4;
  if (rest !== 0) {
    const padded = new Uint8Array(data.byteLength + 4 - rest);
    padded.set(data);
    data = padded;
  }
  queue.writeBuffer(buffer, start, data);
  if (rest === 0) return undefined;
  return { offset: start + data.byteLength - 4, bytes: data.slice(data.byteLength - 4, data.byteLength - 2) };
}
