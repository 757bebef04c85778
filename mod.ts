/**
 * Cairn runs language models on a GPU from a Deno script: models are pipelines of layers, layers are WGSL kernels.
 *
 * ```ts ignore
 * import { generate, loadModel, openGpu } from "@cairn/cairn";
 *
 * using gpu = await openGpu();
 * using model = await loadModel(gpu, "examples/models/novel-llama");
 * const run = generate(model, "The rain had not stopped for", { maxTokens: 200, seed: 7 });
 * for await (const piece of run) await Deno.stdout.write(piece.bytes);
 * console.error(await run.record);
 * ```
 *
 * @module
 */

export {
  type AdapterDescription,
  type BufferRequest,
  formatBytes,
  type Gpu,
  type GpuAllocation,
  type GpuFeatures,
  GpuLostError,
  GpuMemoryError,
  KernelError,
  type Memory,
  openGpu,
  type OpenGpuOptions,
  type Pipeline,
  type Pipelines,
  type PipelineSource,
} from "./lib/gpu/mod.ts";
export {
  describeModel,
  type DescribeModelOptions,
  type GenerationDefaults,
  loadModel,
  type LoadModelOptions,
  type LoadProgress,
  type Model,
} from "./lib/models/mod.ts";
export {
  type ByteDecoder,
  type ChatMessage,
  type ChatRole,
  type DecodeOptions,
  type EncodeOptions,
  renderChat,
  type RenderChatOptions,
  type SpecialTokenFilter,
  type Tokenizer,
} from "./lib/text/mod.ts";
export {
  attend,
  type AttendInputs,
  type AttendOptions,
  type DeviceTraits,
  type EncodePromptOptions,
  type FinishReason,
  forward,
  type ForwardOptions,
  type ForwardResult,
  generate,
  type GenerateOptions,
  type GenerateRecord,
  type GenerateRun,
  type KernelTime,
  type Piece,
  type PlanOptions,
  type PlanReport,
  planRun,
  positionLimit,
  type Prompt,
  restoreSession,
  type Score,
  score,
  type ScoreOptions,
  type Session,
  session,
  type SessionOptions,
  type TokenLogprobs,
} from "./lib/generate/mod.ts";
export { type ModelConfig, type PipelineModel, printLayers } from "./lib/layers/mod.ts";
export * from "./lib/transforms/mod.ts";
