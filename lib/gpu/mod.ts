// The GPU layer: devices, memory, pipelines, recording, read-back and timing. Knows nothing of tensors or models.

export { formatBytes, GpuLostError, GpuMemoryError, KernelError } from "./errors.ts";
export { allocatedBytes, type BufferRequest, type GpuAllocation, type Memory } from "./memory.ts";
export { type Pipeline, type Pipelines, type PipelineSource } from "./pipelines.ts";
export {
  type AdapterDescription,
  type Gpu,
  type GpuFeatures,
  NO_ADAPTER,
  openGpu,
  type OpenGpuOptions,
} from "./open.ts";
export { createRecorder, type Recorder } from "./recorder.ts";
export { createStaging, readBuffer, type Staging } from "./readback.ts";
export { createTimer, type KernelTime, type Timer } from "./timing.ts";
