// cairn generate: continues a prompt.

import {
  formatBytes,
  generate as generateText,
  type GenerateRecord,
  type GenerateRun,
  type Model,
  planRun,
} from "../../../mod.ts";
import { checkLine, checkSwap, requireScorable, wantsCheck } from "../check.ts";
import { columns } from "../columns.ts";
import { type Command, print } from "../command.ts";
import { EXIT, refused, WrongCall } from "../errors.ts";
import { modelDirectory } from "../files.ts";
import type { Values } from "../flags.ts";
import { interruptible } from "../interrupt.ts";
import type { Io } from "../io.ts";
import { coresByLayer, stateInPlace } from "../linear.ts";
import { LINEAR_NOTE } from "../linear_help.ts";
import { withModel } from "../open_model.ts";
import { GENERATE_FLAGS, generateOptions, MODEL_FLAGS, PROMPT_FLAGS } from "../options.ts";
import { promptIds, readPrompt, requireChatTemplate } from "../prompt.ts";
import { keptByLayer, ofFull, settings } from "../prune.ts";
import { PRUNE_NOTE } from "../prune_help.ts";
import { statusLine } from "../status_line.ts";
import { warnOfRun } from "../warnings.ts";

/** Continues a prompt: the text as it comes, or one JSON object at the end. */
export const generate: Command = {
  name: "generate",
  summary: "Continue a prompt",
  notes: [
    "Without a prompt flag the text is read from stdin, as it is: a newline at its end counts too.",
    "With --system or --chat-template the prompt is the user's message of a chat.",
    LINEAR_NOTE,
    PRUNE_NOTE,
  ],
  examples: [
    [
      'generate --model examples/models/novel-llama --prompt "The rain had not stopped for"',
      "A text, written as it comes",
    ],
    [
      'generate --model examples/models/novel-llama --prompt "It was" --max-tokens 20 --seed 7 --json',
      "Text, ids, times and bytes as JSON",
    ],
    [
      "generate --model examples/models/novel-llama --prompt-file LICENSE --prune pyramid-infer:keep=0.45",
      "With less than half of the KV cache",
    ],
    [
      "generate --model examples/models/novel-llama --prompt-file LICENSE --max-tokens 20 --json " +
      "--prune pyramid-infer:cache-tokens=400,same-layer --trace-kept",
      "With 400 tokens a layer on average, and which ones they were after the prompt",
    ],
    [
      "generate --model examples/models/novel-llama --prompt-file LICENSE --linear norm-attention:layers=3-5 --check",
      "With linear attention in half of the layers, and what that does to the prompt's perplexity",
    ],
  ],
  flags: [
    ...MODEL_FLAGS,
    ...PROMPT_FLAGS,
    "system",
    "chat-template",
    ...GENERATE_FLAGS,
    "logprobs",
    "trace-kept",
    "check",
    "json",
    "quiet",
  ],
  run(io, values) {
    return interruptible(io, async (signal) => {
      if (values["trace-kept"] && !values.json) {
        throw new WrongCall("--trace-kept is told in JSON alone: add --json, or leave it out");
      }
      const wanted = wantsCheck(values);
      const directory = await modelDirectory(io, values);
      const given = await readPrompt(io, values, signal);
      const { prompt, chatTemplate } = given;
      if (values.system !== undefined) {
        await requireChatTemplate(directory, chatTemplate, "leave --system out to continue plain text");
      }
      await withModel(io, values, signal, async (model, swap) => {
        const traceKept = values["trace-kept"];
        const options = { ...generateOptions(values, model), chatTemplate, signal, traceKept };
        const run = begin(() => {
          const ids = wanted ? promptIds(model, given) : undefined;
          if (ids) requireScorable(ids);
          return generateText(model, prompt, options);
        });
        // In JSON nobody watches, so that submits are long.
        const record = values.json ? await run.record : await stream(io, model, run, values.quiet ?? false);
        warnOfRun(io, values, model, record);
        const window = record.promptIds.slice(0, model.config.contextLength);
        const check = wanted ? await checkSwap(swap, window, signal) : undefined;
        if (values.json) {
          const { kept } = record;
          return await print(io, {
            ...record,
            ...kept ? { kept: keptByLayer(kept) } : {},
            ...check ? { check } : {},
          });
        }
        if (check) io.stderr.write(checkLine(check));
        if (values.logprobs !== undefined) io.stderr.write(logprobTable(model, record));
        if (!values.quiet) io.stderr.write(statistics(record, model, values));
      });
      return signal.aborted ? EXIT.interrupted : EXIT.ok;
    });
  },
};

/** Begins a run; what it refuses is a wrong call. */
function begin<T>(start: () => T): T {
  try {
    return start();
  } catch (error) {
    throw refused(error);
  }
}

/** Writes pieces as they come; of a model without tokenizer the ids, in the form that `--prompt-ids` takes. */
async function stream(
  io: Io,
  model: Model,
  run: GenerateRun<GenerateRecord>,
  quiet: boolean,
): Promise<GenerateRecord> {
  const status = statusLine(io, quiet);
  status.show("Reading the prompt");
  let last = "";
  try {
    for await (const { ids, text, bytes } of run) {
      status.clear();
      if (model.tokenizer) await io.stdout.write(bytes);
      else await print(io, `${last && ","}${ids.join()}`);
      last = model.tokenizer ? text || last : "ids";
    }
  } finally {
    status.clear();
  }
  // Elsewhere than on a terminal the text is to the byte what the model wrote.
  if (io.stdout.isTerminal && !last.endsWith("\n")) await print(io, "\n");
  return await run.record;
}

function statistics(record: GenerateRecord, model: Model, values: Values): string {
  const { usage, finishReason, seed, timing, bytes, readbacks } = record;
  const ms = (value: number) => `${value.toFixed(0)} ms`;
  const rate = (value: number) => `${value.toFixed(0)} tokens/s`;
  return columns([
    [
      "tokens",
      `${usage.promptTokens} prompt + ${usage.completionTokens} new, ended by ${finishReason}, seed ${seed}`,
    ],
    [
      "time",
      `load ${ms(timing.loadMs)}, first token ${ms(timing.timeToFirstTokenMs)}, ` +
      `prefill ${rate(timing.prefillTokensPerSecond)}, decode ${rate(timing.decodeTokensPerSecond)}`,
    ],
    [
      "memory",
      `weights ${formatBytes(bytes.weights)}, cache ${formatBytes(bytes.cache)}, ` +
      `activations ${formatBytes(bytes.activations)}, peak ${
        formatBytes(bytes.peak)
      }; ${readbacks} read-backs`,
    ],
    ...sparedRows(record, model, values),
  ]);
}

/** What linear attention spares; what is left of the cache, and what was settled for its budget. */
function sparedRows({ usage, bytes, pruning }: GenerateRecord, model: Model, values: Values): string[][] {
  const cores = coresByLayer(model);
  if (!pruning && !cores) return [];
  const lengths = { promptTokens: usage.promptTokens, maxTokens: values["max-tokens"] };
  const { layers, bytes: { fullCache = bytes.cache } } = planRun(model, lengths);
  const settled = settings(pruning?.settled);
  return [
    ...cores ? [["linear", `${cores}; ${stateInPlace(layers)}`]] : [],
    ...pruning ? [["pruning", `${pruning.policy}: cache ${ofFull(bytes.cache, fullCache)}`]] : [],
    ...settled ? [["settled", settled]] : [],
  ];
}

/** A line a token: its log-probability, and the likeliest ones with theirs. */
function logprobTable(model: Model, { logprobs = [] }: GenerateRecord): string {
  const name = (id: number) => model.tokenizer ? JSON.stringify(model.tokenizer.decode([id])) : String(id);
  const entry = ({ id, logprob }: { id: number; logprob: number }) => `${name(id)} ${logprob.toFixed(3)}`;
  return columns(logprobs.map((token) => [entry(token), token.top.map(entry).join("  ")]));
}
