// The transform: a model with linear attention in the layers that are named.

import {
  type AttentionConfig,
  attentionsOf,
  type Core,
  type ExtraProjection,
  mapAttentions,
  type PipelineModel,
  type WeightView,
} from "../../layers/mod.ts";

/** Projections that a core takes beside queries, keys and values. */
export type ExtraProjections = { readonly [name in ExtraProjection]?: WeightView };

/** Options of {@linkcode withLinearAttention}. */
export interface WithLinearAttentionOptions {
  /** Whether attention layer `layer` of `layers` gets the core, by index from 0. Default: all do. */
  readonly layers?: (layer: number, layers: number) => boolean;
  /**
   * Projections for gates, decays and strengths of writes, of weights that are in the model's store; for cores that need
   * what the model does not have.
   */
  readonly projections?: (layer: number, layers: number, config: AttentionConfig) => ExtraProjections;
}

/** A core for every layer, or one by index and number of layers, as decays by layer need it. */
export type CoreChoice = Core | ((layer: number, layers: number) => Core);

/** What an untrained swap means. */
function warningOf(core: string, layers: readonly number[], count: number): string {
  const what = layers.length === count
    ? `all ${count} attention layers`
    : `${layers.length} of ${count} attention layers`;
  return `${core} in ${what} (${layers.join(", ")}) of a model that was not trained with it: ` +
    "what it writes is not what the model would write";
}

/**
 * Puts a core of linear attention into the attention layers that are named. The new model shares the weights of the old
 * one, which is unchanged; all that runs models takes it. The model was not trained so: what comes out differs, which the
 * record of a run says, and which `score` measures. Together with `withKvPruning`, this comes first: pruning applies to the
 * softmax layers that remain.
 *
 * @throws {RangeError} when no layer is named.
 * @throws {TypeError} when a core needs a projection that is neither in the model nor given, or a layer is pruned already.
 */
export function withLinearAttention(
  core: CoreChoice,
  options: WithLinearAttentionOptions = {},
): <M extends PipelineModel>(model: M) => M {
  const { layers: named = () => true, projections } = options;
  return (model) => {
    const count = attentionsOf(model).length;
    const swapped: number[] = [];
    const given = new Set<WeightView["weight"]>();
    let first: Core | undefined;
    const result = mapAttentions(model, (config, layer) => {
      if (!named(layer, count)) return config;
      if (config.core.prunes) {
        throw new TypeError(
          `Layer ${layer} is pruned already: put linear attention into the model first, then prune what remains`,
        );
      }
      const own = typeof core === "function" ? core(layer, count) : core;
      first ??= own;
      swapped.push(layer);
      const extra = projections?.(layer, count, config) ?? {};
      for (const view of Object.values(extra)) if (view) given.add(view.weight);
      return { ...config, weights: { ...config.weights, ...extra }, core: own };
    });
    if (!first) {
      throw new RangeError(
        count === 0
          ? "The model has no attention layer"
          : `No layer is named: the model's ${count} attention layers have the indexes 0 to ${count - 1}`,
      );
    }
    const { kind, settings = {} } = first;
    const added = [...given].filter((weight) => !model.weights.includes(weight));
    return {
      ...result,
      weights: [...model.weights, ...added],
      linearized: [
        ...(model.linearized ?? []),
        { core: kind, options: settings, layers: swapped, warning: warningOf(kind, swapped, count) },
      ],
    };
  };
}
