// cairn plan: what a run would take, without a GPU.

import { describeModel, formatBytes, type Model, type PlanReport, planRun } from "../../../mod.ts";
import { columns } from "../columns.ts";
import { type Command, print } from "../command.ts";
import { EXIT, refused, WrongCall } from "../errors.ts";
import { modelDirectory } from "../files.ts";
import type { Values } from "../flags.ts";
import { interruptible } from "../interrupt.ts";
import type { Io } from "../io.ts";
import { coresByLayer, linearized, requireSuited, stateInPlace } from "../linear.ts";
import { LINEAR_NOTE } from "../linear_help.ts";
import { PROMPT_FLAGS } from "../options.ts";
import { type GivenPrompt, hasPrompt, promptIds, readPrompt } from "../prompt.ts";
import { ofFull, pruned, settings } from "../prune.ts";
import { PRUNE_NOTE } from "../prune_help.ts";
import { warnOfModel } from "../warnings.ts";

/** Tells bytes and kernels of a run. */
export const plan: Command = {
  name: "plan",
  summary: "Tell what a run would take: bytes by layer, and kernels; needs no GPU",
  notes: [
    "It reads config.json and, if they are there, the tokenizer and the header of the weights.",
    LINEAR_NOTE,
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
    [
      "plan --model examples/models/novel-llama --prompt-tokens 1024 --linear norm-attention:layers=3-5",
      "States of linear attention beside the keys and values that they stand for",
    ],
  ],
  flags: [
    "model",
    "dtype",
    "linear",
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
      requireSuited(described, values.linear);
      const swapped = linearized(described, values.linear);
      warnOfModel(io, values, swapped);
      const model = pruned(swapped, values.prune);
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
  return tokenCount(model, await readPrompt(io, values, signal));
}

function tokenCount(model: Model, given: GivenPrompt): number {
  const ids = promptIds(model, given);
  if (ids) return ids.length;
  throw new WrongCall(
    `The model in ${model.directory} has no tokenizer.json: give --prompt-tokens or --prompt-ids`,
  );
}

function readable(model: Model, report: PlanReport, sequences: number): string {
  const { promptTokens, maxTokens, layers, bytes, kernels } = report;
  const { fullCache: _, ...taken } = bytes;
  const count = (n: number, what: string) => `${n} ${what}${n === 1 ? "" : "s"}`;
  return `${model.config.modelType}, ${model.dtype}: ${count(sequences, "sequence")} of ` +
    `${count(promptTokens, "prompt token")} + ${count(maxTokens, "new token")}
${linearLines(model, report)}${pruningLines(model, report)}
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

/** Which layers have linear attention, and what that spares. */
function linearLines(model: Model, { layers }: PlanReport): string {
  const cores = coresByLayer(model);
  return cores && `Linear attention: ${cores}; ${stateInPlace(layers)}\n`;
}

/** What is left of the cache, and what was settled for the budget. */
function pruningLines({ pruning }: Model, { promptTokens, maxTokens, bytes }: PlanReport): string {
  if (!pruning || bytes.fullCache === undefined) return "";
  const settled = settings(pruning.settle({ tokens: promptTokens, maxTokens, position: 0 }));
  return `Pruned by ${pruning.policy}: cache ${ofFull(bytes.cache, bytes.fullCache)}\n` +
    (settled && `Settled: ${settled}\n`);
}

/** Columns of bytes, in which a layer without a field has what its own cache takes. */
const BYTE_COLUMNS = [
  ["cache", "cacheBytes"],
  ["in full", "fullBytes"],
  ["state", "stateBytes"],
  ["as KV", "kvBytes"],
] as const;

/**
 * A line a layer: of a model that prunes with the bytes of a cache that keeps everything, of one that keeps states with the
 * bytes that keys and values would take, and a sum.
 */
function layerTable(layers: PlanReport["layers"]): string {
  const shown = BYTE_COLUMNS.filter(([, field]) => layers.some((layer) => layer[field] !== undefined));
  const states = layers.some(({ kvBytes }) => kvBytes !== undefined);
  const bytes = layers.map((layer) =>
    shown.map(([, field]) =>
      layer[field] ?? (field === "kvBytes" ? layer.fullBytes : undefined) ?? layer.cacheBytes
    )
  );
  const sums = shown.map((_, column) => bytes.reduce((sum, row) => sum + row[column], 0));
  return columns([
    ["layer", "kind", "tokens", ...shown.map(([title]) => title)],
    ...layers.map(({ index, kind, cacheTokens }, i) => [
      `${index}`,
      kind,
      `${cacheTokens}`,
      ...bytes[i].map(formatBytes),
    ]),
    ...states ? [["sum", "", "", ...sums.map(formatBytes)]] : [],
  ], { indent: "  ", right: [0, 2, 3, 4, 5, 6] });
}
