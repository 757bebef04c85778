// cairn score: how likely a model finds a text.

import { type Score, score as scoreText } from "../../../mod.ts";
import { columns } from "../columns.ts";
import { type Command, print } from "../command.ts";
import { EXIT, refused } from "../errors.ts";
import { modelDirectory } from "../files.ts";
import { interruptible } from "../interrupt.ts";
import { withModel } from "../open_model.ts";
import { MODEL_FLAGS, PROMPT_FLAGS } from "../options.ts";
import { readPrompt } from "../prompt.ts";
import { PRUNE_NOTE } from "../prune_help.ts";
import { statusLine } from "../status_line.ts";

/** Scores a text with sliding windows. */
export const score: Command = {
  name: "score",
  summary: "Tell how likely a text is to a model: loss, perplexity, bits per byte",
  notes: [
    "Without a prompt flag the text is read from stdin, as it is.",
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
  ],
  flags: [...MODEL_FLAGS, ...PROMPT_FLAGS, "window", "stride", "context", "json", "quiet"],
  run(io, values) {
    return interruptible(io, async (signal) => {
      await modelDirectory(io, values);
      const { prompt } = await readPrompt(io, values, signal);
      const status = statusLine(io, values.quiet ?? false);
      const result = await withModel(io, values, signal, async (model) => {
        try {
          return await scoreText(model, prompt, {
            window: values.window,
            stride: values.stride,
            context: values.context,
            signal,
            onProgress: (scored, total) => status.show(`Scored ${scored} of ${total} tokens`),
          });
        } catch (error) {
          throw error instanceof RangeError ? refused(error) : error;
        } finally {
          status.clear();
        }
      });
      const { nll: _, ...told } = result;
      await print(io, values.json ? told : summary(told));
      return EXIT.ok;
    });
  },
};

function summary({ tokens, meanNll, perplexity, bitsPerByte, window, stride }: Omit<Score, "nll">): string {
  return columns([
    ["tokens", `${tokens}`],
    ["mean loss", `${meanNll.toFixed(4)} nats a token`],
    ["perplexity", perplexity.toFixed(2)],
    ...bitsPerByte === null ? [] : [["bits per byte", bitsPerByte.toFixed(4)]],
    ["window", `${window} tokens, ${stride} from one to the next`],
  ]);
}
