// cairn plan: what a run would take, without a GPU.

import {
  type ChatMessage,
  describeModel,
  formatBytes,
  type Model,
  type PlanReport,
  planRun,
  type Prompt,
  renderChat,
} from "../../../mod.ts";
import { columns } from "../columns.ts";
import { type Command, print } from "../command.ts";
import { EXIT, refused, WrongCall } from "../errors.ts";
import { modelDirectory } from "../files.ts";
import type { Values } from "../flags.ts";
import { interruptible } from "../interrupt.ts";
import type { Io } from "../io.ts";
import { PROMPT_FLAGS } from "../options.ts";
import { hasPrompt, readPrompt } from "../prompt.ts";
import { ofFull, pruned, settings } from "../prune.ts";
import { PRUNE_NOTE } from "../prune_help.ts";

/** Tells bytes and kernels of a run. */
export const plan: Command = {
  name: "plan",
  summary: "Tell what a run would take: bytes by layer, and kernels; needs no GPU",
  notes: [
    "It reads config.json and, if they are there, the tokenizer and the header of the weights.",
    PRUNE_NOTE,
  ],
  examples: [
    [
      "plan --model examples/models/novel-llama --prompt-tokens 1024 --max-tokens 200",
      "Bytes of a long prompt's cache",
    ],
    [
      "plan --model examples/models/novel-llama --prompt-tokens 100 --sequences 16 --json",
      "Sixteen prompts at once, as JSON",
    ],
    [
      "plan --model examples/models/novel-llama --prompt-tokens 1024 --prune pyramid-infer:keep=0.45",
      "What pruning leaves of the cache, layer by layer",
    ],
  ],
  flags: [
    "model",
    "dtype",
    "prune",
    "batch-invariant",
    ...PROMPT_FLAGS,
    "system",
    "chat-template",
    "prompt-tokens",
    "max-tokens",
    "sequences",
    "json",
    "quiet",
  ],
  run(io, values) {
    return interruptible(io, async (signal) => {
      using described = await describeModel(await modelDirectory(io, values), { dtype: values.dtype });
      if (!values.quiet) {
        for (const warning of described.warnings) io.stderr.write(`warning: ${warning}\n`);
      }
      const model = pruned(described, values.prune);
      const promptTokens = await promptLength(io, values, model, signal);
      const report = planOrRefuse(model, values, promptTokens);
      const { layers, bytes, kernels } = report;
      await print(
        io,
        values.json ? { layers, bytes, kernels } : readable(model, report, values.sequences ?? 1),
      );
      return EXIT.ok;
    });
  },
};

function planOrRefuse(model: Model, values: Values, promptTokens: number): PlanReport {
  try {
    return planRun(model, {
      promptTokens,
      maxTokens: values["max-tokens"],
      sequences: values.sequences,
      batchInvariant: values["batch-invariant"],
    });
  } catch (error) {
    throw refused(error);
  }
}

/** Tokens of the prompt: as told, of the prompt given, or as many as are usual. */
async function promptLength(io: Io, values: Values, model: Model, signal: AbortSignal): Promise<number> {
  const told = values["prompt-tokens"];
  if (told !== undefined && (hasPrompt(values) || values.system !== undefined)) {
    throw new WrongCall("--prompt-tokens and a prompt both give a length: keep one of them");
  }
  if (told !== undefined) return told;
  if (!hasPrompt(values)) {
    if (values.system !== undefined || values["chat-template"] !== undefined) {
      throw new WrongCall("A system message or a chat template alone is no chat: add --prompt TEXT");
    }
    const left = model.config.contextLength - (values["max-tokens"] ?? 1);
    return Math.max(1, Math.min(512, left));
  }
  const { prompt, chatTemplate } = await readPrompt(io, values, signal);
  return tokenCount(model, prompt, chatTemplate);
}

function isChat(prompt: Exclude<Prompt, string>): prompt is readonly ChatMessage[] {
  return typeof prompt[0] === "object";
}

function tokenCount(model: Model, prompt: Prompt, template: string | undefined): number {
  if (typeof prompt !== "string" && !isChat(prompt)) return prompt.length;
  const { tokenizer } = model;
  if (!tokenizer) {
    throw new WrongCall(
      `The model in ${model.directory} has no tokenizer.json: give --prompt-tokens or --prompt-ids`,
    );
  }
  return (typeof prompt === "string" ? tokenizer.encode(prompt) : renderChat(tokenizer, prompt, { template }))
    .length;
}

function readable(model: Model, report: PlanReport, sequences: number): string {
  const { promptTokens, maxTokens, layers, bytes, kernels } = report;
  const { fullCache: _, ...taken } = bytes;
  const count = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
  return `${model.config.modelType}, ${model.dtype}: ${count(sequences, "sequence")} of ` +
    `${count(promptTokens, "prompt token")} + ${count(maxTokens, "new token")}
${pruningLines(model, report)}
Layers
${layerTable(layers)}
Bytes
${
      columns([
        ...Object.entries(taken).map(([name, value]) => [name, formatBytes(value)]),
        ["sum", formatBytes(taken.weights + taken.cache + taken.activations)],
      ], { indent: "  ", right: [1] })
    }
Kernel calls of a prefill step and a decode step
${columns(kernels.map(({ name, count }) => [`${count}`, name]), { indent: "  ", right: [0] })}`;
}

/** What is left of the cache, and what was settled for the budget. */
function pruningLines({ pruning }: Model, { promptTokens, maxTokens, bytes }: PlanReport): string {
  if (!pruning || bytes.fullCache === undefined) return "";
  const settled = settings(pruning.settle({ tokens: promptTokens, maxTokens, position: 0 }));
  return `Pruned by ${pruning.policy}: cache ${ofFull(bytes.cache, bytes.fullCache)}\n` +
    (settled && `Settled: ${settled}\n`);
}

/** A line a layer; of a model that prunes with the bytes of a cache that keeps everything. */
function layerTable(layers: PlanReport["layers"]): string {
  const prunes = layers.some(({ fullBytes }) => fullBytes !== undefined);
  return columns([
    ["layer", "kind", "tokens", "cache", ...prunes ? ["in full"] : [], "state"],
    ...layers.map(({ index, kind, cacheTokens, cacheBytes, stateBytes, fullBytes = cacheBytes }) => [
      `${index}`,
      kind,
      `${cacheTokens}`,
      formatBytes(cacheBytes),
      ...prunes ? [formatBytes(fullBytes)] : [],
      formatBytes(stateBytes),
    ]),
  ], { indent: "  ", right: [0, 2, 3, 4, 5] });
}
