// PyramidInfer as its paper's algorithm box has it, over a naive Llama in f64: full attention rows, sorted scores, token
// lists in the order of positions. Lengths follow from the attention.

import { score as logit, type Slot } from "./attention.ts";
import {
  type CoreOracle,
  type CoreResult,
  type CoreRows,
  headsOf,
  type LlamaConfigJson,
  llamaOracle,
  type LlamaTensors,
  rotaryOracle,
} from "./llama.ts";
import { nucleusOracle } from "./nucleus.ts";
import { largestIndex } from "./pyramid_infer_lengths.ts";

/** Settings of the box. */
export interface PaperSettings {
  readonly p: number;
  readonly pDecay: number;
  /** Fewest tokens by layer. */
  readonly minimum: readonly number[];
  readonly recentRatio: number;
  readonly sinks: number;
  readonly distanceWeight: number;
  readonly rowCap?: number;
  /** Most slots of a turn by layer. Default: no limit. */
  readonly slots?: (layer: number, tokens: number, maxTokens: number) => number;
}

/** What a turn left. */
export interface PaperResult {
  readonly ids: readonly number[];
  readonly logprobs: readonly number[];
  /** Positions after the prompt, by layer. */
  readonly promptKept: readonly (readonly number[])[];
  /** Rows that entered each layer, and those after the last. */
  readonly rows: readonly number[];
  /** Positions at the end, by layer. */
  readonly kept: readonly (readonly number[])[];
}

/** A token as a layer keeps it, with a key and a value a KV head. */
interface Token {
  readonly position: number;
  readonly slots: readonly Slot[];
}

/** A sequence. */
export class PyramidInferPaperOracle {
  /** How near a share was to be reached a token earlier or later, at the least. */
  leastGap = Infinity;
  /** Least distance of scores on both sides of a cut. */
  leastCut = Infinity;
  /** Least distance of the two largest logits. */
  leastMargin = Infinity;
  /** Most tokens that one pass of decode dropped from a layer. */
  mostDropped = 0;
  readonly #layers: Token[][];
  #fed = 0;

  constructor(
    readonly config: LlamaConfigJson,
    readonly tensors: LlamaTensors,
    readonly settings: PaperSettings,
    /** What becomes of keys, rotated, and values that are kept. */
    readonly stored: (vector: Float64Array) => Float64Array = (vector) => vector,
  ) {
    this.#layers = Array.from({ length: config.num_hidden_layers }, () => []);
  }

  /** Feeds a prompt and goes on greedily. */
  turn(ids: readonly number[], maxTokens: number): PaperResult {
    const { config, tensors } = this;
    const rows: number[] = [];
    const window = 1 + Math.floor(this.settings.recentRatio * ids.length);
    const slots = this.settings.slots ?? (() => ids.length + maxTokens - 1);
    const most = this.#layers.map((own, layer) => own.length + slots(layer, ids.length, maxTokens));
    const prompt = llamaOracle(config, tensors, ids, {
      positions: ids.map((_, i) => this.#fed + i),
      core: (given) => this.#prefill(given, window, most[given.layer] - (maxTokens > 1 ? 1 : 0), rows),
    });
    this.#fed += ids.length;
    rows.push(prompt.positions.length);
    const promptKept = this.#positions();
    const sampled: number[] = [];
    const logprobs: number[] = [];
    const sample = (logits: Float64Array): void => {
      const { index, margin } = largestIndex(logits);
      this.leastMargin = Math.min(this.leastMargin, margin);
      sampled.push(index);
      logprobs.push(-Math.log(logits.reduce((sum, value) => sum + Math.exp(value - logits[index]), 0)));
    };
    sample(prompt.logits.slice(-config.vocab_size));
    while (sampled.length < maxTokens) {
      // No row follows the last one.
      const last = sampled.length === maxTokens - 1;
      const core: CoreOracle = (given) =>
        this.#decode(given, last ? undefined : window, most[given.layer] - 1);
      const row = llamaOracle(config, tensors, sampled.slice(-1), { positions: [this.#fed++], core });
      sample(row.logits);
    }
    return { ids: sampled, logprobs, promptKept, rows, kept: this.#positions() };
  }

  #positions(): number[][] {
    return this.#layers.map((own) => own.map(({ position }) => position));
  }

  #news({ positions, keys, values }: CoreRows): Token[] {
    const rotated = rotaryOracle(this.config);
    return positions.map((position, row) => ({
      position,
      slots: keys[row].map((key, head) => ({
        position,
        key: this.stored(rotated(key, position)),
        value: this.stored(values[row][head]),
      })),
    }));
  }

  /** Attention of a row's heads: the weights of each, and the sums of values. */
  #attend(queries: readonly Float64Array[], position: number, tokens: readonly Token[]) {
    const { heads, kvHeads, headSize } = headsOf(this.config);
    const rotated = rotaryOracle(this.config);
    return queries.map((query, head) => {
      const own = tokens.map(({ slots }) => slots[Math.floor(head * kvHeads / heads)]);
      const turned = rotated(query, position);
      const logits = own.map((slot) =>
        slot.position <= position ? logit(turned, slot.key, 1 / Math.sqrt(headSize)) : -Infinity
      );
      const most = logits.reduce((a, b) => Math.max(a, b));
      const powers = logits.map((value) => Math.exp(value - most));
      const all = powers.reduce((a, b) => a + b);
      const weights = powers.map((power) => power / all);
      const value = new Float64Array(headSize);
      own.forEach((slot, j) => slot.value.forEach((x, d) => value[d] += weights[j] * x));
      return { weights, value };
    });
  }

  #choose(
    scores: readonly number[],
    layer: number,
    limits: Record<"sinks" | "least" | "most", number>,
  ): number[] {
    const { p, pDecay } = this.settings;
    const { kept, gap, cut } = nucleusOracle(scores, { ...limits, share: p * pDecay ** layer });
    this.leastGap = Math.min(this.leastGap, gap);
    this.leastCut = Math.min(this.leastCut, cut);
    return kept;
  }

  #prefill(given: CoreRows, window: number, most: number, rows: number[]): CoreResult {
    const { layer, positions, queries } = given;
    const { distanceWeight, rowCap = Infinity, minimum, sinks } = this.settings;
    const earlier = this.#layers[layer];
    const news = this.#news(given);
    const all = [...earlier, ...news];
    rows.push(news.length);
    const attended = queries.map((row, i) => this.#attend(row, positions[i], all));
    const context = news.length - window;
    const scored = Math.min(window, rowCap);
    const scores = news.slice(0, context).map((_, j) => {
      let sum = 0;
      for (let i = 0; i < scored; i++) {
        const weight = scored === 1 ? 1 : 1 + (distanceWeight - 1) * i / (scored - 1);
        for (const { weights } of attended[news.length - scored + i]) {
          sum += weight * weights[earlier.length + j];
        }
      }
      return sum / scored / queries[0].length;
    });
    const kept = [
      ...this.#choose(scores, layer, {
        sinks: earlier.length > 0 ? 0 : sinks,
        least: minimum[layer] - earlier.length - window,
        most: most - earlier.length - window,
      }),
      ...positions.keys().drop(context),
    ];
    this.#layers[layer] = [...earlier, ...kept.map((row) => news[row])];
    return { values: kept.map((row) => attended[row].map(({ value }) => value)), kept };
  }

  #decode(given: CoreRows, window: number | undefined, most: number): CoreResult {
    const { layer, positions: [position], queries: [queries] } = given;
    const { minimum, sinks } = this.settings;
    const tokens = [...this.#layers[layer], ...this.#news(given)];
    const attended = this.#attend(queries, position, tokens);
    this.#layers[layer] = tokens;
    if (window !== undefined) {
      const context = tokens.filter((token) => token.position < position + 1 - window).length;
      const newest = tokens.length - context;
      const scores = tokens.slice(0, context).map((_, j) =>
        attended.reduce((sum, { weights }) => sum + weights[j], 0) / attended.length
      );
      const kept = this.#choose(scores, layer, {
        sinks: tokens.slice(0, context).filter((token) => token.position < sinks).length,
        least: minimum[layer] - newest,
        most: most - newest,
      });
      this.mostDropped = Math.max(this.mostDropped, context - kept.length);
      this.#layers[layer] = [...kept.map((j) => tokens[j]), ...tokens.slice(context)];
    }
    return { values: [attended.map(({ value }) => value)] };
  }
}
