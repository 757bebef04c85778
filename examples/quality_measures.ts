// What examples/kv_quality.ts measures of one model: notes found, with the question in the prompt and asked only afterwards,
// the loss of a continuation, and how often it would write what the model with its full cache writes.

import { generate, type GenerateRecord, type Model, score, session } from "../mod.ts";
import { forcedGreedy, type ForcedText } from "./forced_greedy.ts";
import type { NotePrompt } from "./notes_text.ts";

/** What was measured, or why a budget forbids it. */
export type Measured<T> = T | { readonly reason: string };

/** Answers to the prompts, in their order. */
export interface Answers {
  readonly texts: readonly string[];
  /** Whether each is what was asked for. */
  readonly right: readonly boolean[];
  /** Share of the tokens so far that the cache had in the end, a mean over layers and prompts. */
  readonly held: number;
}

/** A number for every window of a text. */
export interface ByWindow {
  readonly windows: readonly number[];
}

/** What one model was measured to do. */
export interface Quality {
  /** The whole prompt at once: the question is known when its notes are pruned. */
  readonly inside: Measured<Answers>;
  /** The notes in one turn, the question in the next. */
  readonly afterwards: Measured<Answers>;
  /** Mean loss a token of what follows a window's prompt. */
  readonly loss: Measured<ByWindow>;
  /** Share of the full cache's greedy tokens that are the likeliest here too, after the same tokens. */
  readonly agreement: Measured<ByWindow>;
}

/** What models are measured with. */
export interface QualityTask {
  /** Prompts of one length stand together. */
  readonly batches: readonly (readonly NotePrompt[])[];
  /** Token ids of prompts, each with what follows it. */
  readonly windows: readonly (readonly number[])[];
  /** How many of a window's tokens are its prompt. */
  readonly promptTokens: number;
  /** Prompts of windows with the greedy tokens of the full cache. */
  readonly greedy: readonly ForcedText[];
  /** Sessions at a time. */
  readonly sessions: number;
}

/** A prompt's last paragraph, and what stands before it. */
export function splitQuestion(prompt: string): { notes: string; question: string } | undefined {
  const at = prompt.trimStart().lastIndexOf("\n\n");
  if (at < 0) return undefined;
  const cut = prompt.length - prompt.trimStart().length + at;
  return { notes: prompt.slice(0, cut), question: prompt.slice(cut) };
}

/** Greedy tokens of a model after prompts of windows. */
export async function greedyTexts(
  model: Model,
  prompts: readonly (readonly number[])[],
  tokens: number,
): Promise<ForcedText[]> {
  const result: ForcedText[] = [];
  for (const prompt of prompts) {
    const options = { maxTokens: tokens, temperature: 0, repetitionPenalty: 1, ignoreEos: true };
    result.push({ prompt, tokens: (await generate(model, prompt, options).record).ids });
  }
  return result;
}

/** Measures a model. `some` leaves out what takes turns and what compares tokens. */
export async function measureQuality(model: Model, task: QualityTask, some = false): Promise<Quality> {
  const leftOut = { reason: "not measured" };
  return {
    inside: await unlessRefused(() => askInside(model, task)),
    afterwards: some ? leftOut : await unlessRefused(() => askAfterwards(model, task)),
    loss: await unlessRefused(async () => {
      const windows: number[] = [];
      for (const ids of task.windows) {
        windows.push((await score(model, ids, { context: task.promptTokens })).meanNll);
      }
      return { windows };
    }),
    agreement: some ? leftOut : await unlessRefused(() => compareTokens(model, task)),
  };
}

/** Runs what a budget may forbid. */
async function unlessRefused<T>(work: () => Promise<T>): Promise<Measured<T>> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RangeError) return { reason: error.message };
    throw error;
  }
}

async function askInside(model: Model, { batches }: QualityTask): Promise<Answers> {
  const records: GenerateRecord[] = [];
  for (const batch of batches) {
    const texts = batch.map(({ prompt }) => prompt);
    records.push(...await generate(model, texts, { maxTokens: 2, temperature: 0 }).record);
  }
  return answers(
    batches.flat(),
    records,
    records.map(({ usage }) => usage.promptTokens + usage.completionTokens - 1),
  );
}

async function askAfterwards(model: Model, { batches, sessions }: QualityTask): Promise<Answers> {
  const prompts = batches.flat();
  const records: GenerateRecord[] = [];
  const lengths: number[] = [];
  let next = 0;
  const worker = async () => {
    while (next < prompts.length) {
      const index = next++;
      const { notes, question } = splitQuestion(prompts[index].prompt)!;
      using turns = session(model);
      const [first, ...rest] = model.tokenizer!.encode(question, { bos: false });
      // The token that ends a turn is fed with the next one: here it is the first of the question.
      const forced = { maxTokens: 1, temperature: 0, logitBias: { [first]: 1e6 }, ignoreEos: true };
      await turns.generate(notes, forced).record;
      records[index] = await turns.generate(rest, { maxTokens: 2, temperature: 0 }).record;
      lengths[index] = turns.ids.length - 1;
      const whole = model.tokenizer!.encode(prompts[index].prompt);
      if (whole.some((id, i) => turns.ids[i] !== id)) {
        throw new Error(
          "Notes and question are other tokens than the prompt: its last paragraph must be one of its own",
        );
      }
    }
  };
  await Promise.all(Array.from({ length: sessions }, worker));
  return answers(prompts, records, lengths);
}

function answers(
  prompts: readonly NotePrompt[],
  records: readonly GenerateRecord[],
  lengths: readonly number[],
): Answers {
  return {
    texts: records.map(({ text }) => text),
    right: records.map(({ text }, i) => text === prompts[i].answer),
    held: mean(records.map(({ cacheTokens }, i) => mean(cacheTokens) / lengths[i])),
  };
}

async function compareTokens(model: Model, { greedy }: QualityTask): Promise<ByWindow> {
  const chosen = await forcedGreedy(model, greedy);
  return {
    windows: greedy.map(({ tokens }, i) => mean(tokens.map((id, at) => Number(chosen[i][at] === id)))),
  };
}

/** The mean of some numbers. */
export function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** Parts of what is measured. */
export const PARTS = ["inside", "afterwards", "loss", "agreement"] as const;

/** Share of the notes that was found with the question in the prompt. */
export function insideOf({ inside }: Quality): number | undefined {
  return "reason" in inside ? undefined : mean(inside.right.map(Number));
}

/** Share of the notes that was found when they were asked for afterwards. */
export function afterwardsOf({ afterwards }: Quality): number | undefined {
  return "reason" in afterwards ? undefined : mean(afterwards.right.map(Number));
}

/** Loss a token. */
export function lossOf({ loss }: Quality): number | undefined {
  return "reason" in loss ? undefined : mean(loss.windows);
}

/** Share of the full cache's tokens that are the likeliest here too. */
export function agreementOf({ agreement }: Quality): number | undefined {
  return "reason" in agreement ? undefined : mean(agreement.windows);
}

/** A share as whole percent. */
export function percent(share: number | undefined): string {
  return share === undefined ? "–" : `${(share * 100).toFixed(0)} %`;
}

/** A loss with three digits. */
export function lossText(nll: number | undefined): string {
  return nll === undefined ? "–" : nll.toFixed(3);
}

/** A difference with its sign. */
export function signed(value: number): string {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
}
