// Architectures and loading: config.json to layers, tensor names to weights.

export { type ConfigReader, configReader } from "./architecture.ts";
export { ARCHITECTURES, describeModel, type DescribeModelOptions } from "./describe.ts";
export { loadModel, type LoadModelOptions, type LoadProgress } from "./load.ts";
export { llama, type LlamaBlockWeights, type LlamaConfig, type LlamaWeights, llamaWeights } from "./llama.ts";
export { type GenerationDefaults, type Model } from "./model.ts";
