// Checkpoints on the CPU side: files, formats and element types. Knows nothing of layers or the GPU.

export { type Checkpoint, hasCheckpoint, openCheckpoint } from "./checkpoint.ts";
export { type Tally, type TargetType } from "./convert.ts";
export { type Dtype, DTYPES, FLOAT_DTYPES, type FloatDtype } from "./dtype.ts";
export { floatsToHalves, floatToHalf, HALF_MAX, halfToFloat, halvesToFloats } from "./half.ts";
export { type OnChunk, type ReadOptions, type ReadReport } from "./read_tensor.ts";
export { type TensorInfo } from "./safetensors.ts";
