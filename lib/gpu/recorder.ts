// One recorder for passes: dispatches share a compute pass until a copy ends it; with a timer each has its own.

import type { Gpu } from "./open.ts";
import type { Timer } from "./timing.ts";

/** Records commands of one submit. */
export interface Recorder {
  /** Records one dispatch. */
  dispatch(
    name: string,
    pipeline: GPUComputePipeline,
    bindings: GPUBindGroup,
    grid: readonly [number, number, number],
  ): void;
  /** The encoder outside any pass, for copies and clears. */
  encoder(): GPUCommandEncoder;
  /** Ends the recording. */
  finish(): GPUCommandBuffer;
}

/** Makes a recorder; with a timer every dispatch is timed. */
export function createRecorder(gpu: Gpu, timer?: Timer): Recorder {
  const encoder = gpu.device.createCommandEncoder();
  let pass: GPUComputePassEncoder | undefined;
  const end = () => {
    pass?.end();
    pass = undefined;
  };
  return {
    dispatch(name, pipeline, bindings, grid): void {
      if (timer) {
        end();
        const timestampWrites = timer.next(name);
        pass = encoder.beginComputePass(timestampWrites ? { timestampWrites } : {});
      }
      pass ??= encoder.beginComputePass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindings);
      pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    },
    encoder(): GPUCommandEncoder {
      end();
      return encoder;
    },
    finish(): GPUCommandBuffer {
      end();
      timer?.resolve(encoder);
      return encoder.finish();
    },
  };
}
