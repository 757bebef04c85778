// cairn score: how likely a model finds a text.

import { type Model, type Prompt, type Score, score as scoreText, type ScoreOptions } from "../../../mod.ts";
import { checkLine, checkSwap, wantsCheck } from "../check.ts";
import { columns } from "../columns.ts";
import { type Command, print } from "../command.ts";
import { EXIT, refused } from "../errors.ts";
import { modelDirectory } from "../files.ts";
import { interruptible } from "../interrupt.ts";
import { LINEAR_NOTE } from "../linear_help.ts";
import { withModel } from "../open_model.ts";
import { MODEL_FLAGS, PROMPT_FLAGS } from "../options.ts";
import { promptIds, readPrompt } from "../prompt.ts";
import { PRUNE_NOTE } from "../prune_help.ts";
import { statusLine } from "../status_line.ts";

/** Scores a text with sliding windows. */
export const score: Command = {
  name: "score",
  summary: "Tell how likely a text is to a model: loss, perplexity, bits per byte",
  notes: [
    "Without a prompt flag the text is read from stdin, as it is.",
    LINEAR_NOTE,
    PRUNE_NOTE,
    "With --prune what a window has before its scored part is the prompt, and that part is decoded;",
    "--context gives the first window a prompt, which policies that evict nothing in decode need.",
  ],
  examples: [
    [
      "score --model examples/models/novel-llama --prompt-file LICENSE",
      "Perplexity of a file",
    ],
    [
      "score --model examples/models/novel-llama --prompt-file LICENSE --window 256 --stride 64 --json",
      "Short windows that overlap by three quarters, as JSON",
    ],
    [
      "score --model examples/models/novel-llama --prompt-file LICENSE --prune pyramid-infer:keep=0.45",
      "With less than half of the KV cache",
    ],
    [
      "score --model examples/models/novel-llama --prompt-file LICENSE --linear hybrid:layers=3-5 --check",
      "With linear attention in half of the layers, and what that does to the first window",
    ],
  ],
  flags: [...MODEL_FLAGS, ...PROMPT_FLAGS, "window", "stride", "context", "check", "json", "quiet"],
  run(io, values) {
    return interruptible(io, async (signal) => {
      const wanted = wantsCheck(values);
      await modelDirectory(io, values);
      const given = await readPrompt(io, values, signal);
      const status = statusLine(io, values.quiet ?? false);
      await withModel(io, values, signal, async (model, swap) => {
        const { nll: _, ...result } = await scored(model, given.prompt, {
          window: values.window,
          stride: values.stride,
          context: values.context,
          signal,
          onProgress: (scored, total) => status.show(`Scored ${scored} of ${total} tokens`),
        }).finally(status.clear);
        const ids = wanted ? promptIds(model, given) : undefined;
        const check = ids && await checkSwap(swap, ids.slice(0, result.window), signal);
        if (values.json) return await print(io, { ...result, ...check ? { check } : {} });
        await print(io, summary(result));
        if (check) io.stderr.write(checkLine(check));
      });
      return signal.aborted ? EXIT.interrupted : EXIT.ok;
    });
  },
};

/** Scores a text; options that the library refuses are a wrong call. */
async function scored(model: Model, prompt: Prompt, options: ScoreOptions): Promise<Score> {
  try {
    return await scoreText(model, prompt, options);
  } catch (error) {
    throw error instanceof RangeError ? refused(error) : error;
  }
}

function summary({ tokens, meanNll, perplexity, bitsPerByte, window, stride }: Omit<Score, "nll">): string {
  return columns([
    ["tokens", `${tokens}`],
    ["mean loss", `${meanNll.toFixed(4)} nats a token`],
    ["perplexity", perplexity.toFixed(2)],
    ...bitsPerByte === null ? [] : [["bits per byte", bitsPerByte.toFixed(4)]],
    ["window", `${window} tokens, ${stride} from one to the next`],
  ]);
}
