// Architectures and loading: config.json to layers, tensor names to weights.

export { type ConfigReader, configReader } from "./architecture.ts";
export { ARCHITECTURES, describeModel, type DescribeModelOptions } from "./describe.ts";
export { loadModel, type LoadModelOptions, type LoadProgress } from "./load.ts";
export { llama, type LlamaBlockWeights, type LlamaConfig, type LlamaWeights, llamaWeights } from "./llama.ts";
export { transNormer } from "./transnormer.ts";
export { type TransNormerConfig, transNormerConfig, type TransNormerLayer } from "./transnormer_config.ts";
export { transNormerLlm, type TransNormerLlmConfig, transNormerLlmConfig } from "./transnormer_llm.ts";
export { type GenerationDefaults, type Model } from "./model.ts";
