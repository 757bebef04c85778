// Generation: prefill, the decode loop that stays on the GPU, sampling, stopping, streaming, scoring.

export { type KernelTime } from "../gpu/mod.ts";
export { attend, type AttendInputs, type AttendOptions } from "./attend.ts";
export { forward, type ForwardOptions, type ForwardResult } from "./forward.ts";
export { generate } from "./generate.ts";
export { type GenerateOptions } from "./options.ts";
export { type FinishReason, type Piece, type TokenLogprobs } from "./output.ts";
export { type EncodePromptOptions, positionLimit, type Prompt } from "./prompt.ts";
export { type DeviceTraits } from "./plans.ts";
export { type PlanOptions, type PlanReport, planRun } from "./report.ts";
export { type GenerateRecord, type GenerateRun } from "./run.ts";
export { type Score, score, type ScoreOptions } from "./score.ts";
export { restoreSession, type Session, session, type SessionOptions } from "./session.ts";
