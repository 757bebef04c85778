// The cache of PyramidInfer token by token, each layer with its own mark: slow, and without any formula of the planner.

import { assert } from "@std/assert";
import type { ResolvedPyramidInfer } from "../../../lib/transforms/kv_pruning/pyramid_infer_options.ts";
import type { Schedule, Turn } from "../../../lib/transforms/kv_pruning/schedule.ts";

/** What the simulation saw. */
export interface Simulated {
  /** Slots of each layer after each row; entry 0 is after the prompt. */
  readonly lengths: readonly (readonly number[])[];
  /** Rows after which all layers compressed a block. */
  readonly closes: readonly number[];
  /** Most slots live at once, by layer. */
  readonly peaks: readonly number[];
  /** Tokens evicted at caps. */
  readonly evicted: number;
}

interface Layer {
  /** Positions in the turn, ascending; earlier turns' tokens are -1. */
  tokens: number[];
  mark: number;
  peak: number;
}

/** Runs a turn; `random` stands for the scores. Asserts that blocks close in all layers at once and what is never evicted. */
export function simulate(
  options: ResolvedPyramidInfer,
  schedule: Schedule,
  turn: Turn,
  random: () => number,
): Simulated {
  const { genBlock, startLayer, recentRatio } = options;
  const sinks = turn.past ? 0 : options.sinks;
  const layers = schedule.layers.map((layer, index): Layer => {
    const context = layer.rows - layer.window;
    const start = turn.tokens - layer.rows;
    const kept = [...Array(context).keys()];
    while (kept.length > layer.keepSlots) {
      kept.splice(layer.sinks + Math.floor(random() * (kept.length - layer.sinks)), 1);
    }
    // Which prompt tokens came this far does not matter, except that the first are the sinks.
    const tokens = [
      ...Array(turn.past?.[index] ?? 0).fill(-1),
      ...kept.map((token) => token < layer.sinks ? token : token + start),
      ...Array.from({ length: layer.window }, (_, i) => turn.tokens - layer.window + i),
    ];
    return { tokens, mark: tokens.length, peak: tokens.length };
  });
  const lengths = [layers.map(({ tokens }) => tokens.length)];
  const closes: number[] = [];
  let evicted = 0;
  for (let row = 1; row < turn.maxTokens; row++) {
    const recent = Math.floor(recentRatio * (layers[0].tokens.length + 1));
    const closing = new Set<boolean>();
    layers.forEach((layer, index) => {
      const { tokens } = layer;
      const { capacity, genKeep, past } = schedule.layers[index];
      tokens.push(turn.tokens - 1 + row);
      layer.peak = Math.max(layer.peak, tokens.length);
      assert(tokens.length <= capacity, `layer ${index} holds ${tokens.length} of ${capacity} at row ${row}`);
      const behind = tokens.length - recent - layer.mark;
      if (index >= startLayer) closing.add(behind >= genBlock);
      if (index >= startLayer && behind >= genBlock) {
        assert(behind === genBlock, `a block of ${behind} at row ${row}`);
        const end = tokens.length - 1 - recent;
        for (let count = genBlock; count > genKeep; count--) {
          tokens.splice(end - genBlock + Math.floor(random() * count), 1);
        }
        layer.mark = tokens.length - recent;
      }
      if (tokens.length === capacity && row + 1 < turn.maxTokens) {
        const end = Math.min(layer.mark - 1, tokens.length - 1 - recent);
        const open = [...Array(Math.max(0, end)).keys()].filter((slot) =>
          slot >= past && tokens[slot] >= sinks
        );
        assert(open.length > 0, `nothing to evict in layer ${index} at row ${row}`);
        tokens.splice(open[Math.floor(random() * open.length)], 1);
        layer.mark--;
        evicted++;
      }
    });
    assert(closing.size === 1, `layers close blocks apart at row ${row}`);
    if (closing.has(true)) closes.push(row);
    lengths.push(layers.map(({ tokens }) => tokens.length));
  }
  return { lengths, closes, peaks: layers.map(({ peak }) => peak), evicted };
}
