// The transform: a model whose softmax layers keep and compute only what a policy says.

import { mapCores, type PipelineModel, type Turn } from "../../layers/mod.ts";
import type { KvPolicy, Schedule } from "./policy.ts";
import { prunedCore } from "./pruned_core.ts";

/** Schedules that are remembered; a run asks for those of its turns again and again. */
const REMEMBERED = 64;

/**
 * Prunes the KV cache of a model by a policy. The new model shares the weights of the old one, which is unchanged; all
 * that runs models takes it. Weights are freed with either of the two.
 *
 * Prompts are fed whole. A session has up to 384 slots a layer beside those of its budget, so that steps can be taken
 * back after a stop string.
 *
 * @throws {TypeError} when the model has no softmax layer that is not pruned already.
 */
export function withKvPruning(policy: KvPolicy): <M extends PipelineModel>(model: M) => M {
  return (model) => {
    const configs: { heads: number; kvHeads: number }[] = [];
    mapCores(model, (config) => {
      if (config.core.kind === "softmax") configs.push(config);
      return config.core;
    });
    if (configs.length === 0) {
      throw new TypeError(`${policy.name} prunes softmax attention, and this model has no layer of it`);
    }
    const shape = { layers: configs.length, heads: configs[0].heads, kvHeads: configs[0].kvHeads };
    const rules = policy.rules(shape);
    const known = new Map<string, Schedule>();
    const scheduleOf = (turn: Turn): Schedule => {
      const key = [turn.tokens, turn.maxTokens, turn.position, ...turn.past ?? []].join();
      let schedule = known.get(key);
      if (!schedule) {
        schedule = policy.schedule(shape, turn);
        if (known.size >= REMEMBERED) known.clear();
        known.set(key, schedule);
      }
      return schedule;
    };
    let layer = 0;
    const pruned = mapCores(
      model,
      ({ core }, index, count) =>
        core.kind === "softmax"
          ? prunedCore({
            name: policy.name,
            layers: shape.layers,
            layer,
            last: index === count - 1,
            rule: rules[layer++],
            scheduleOf,
          })
          : core,
    );
    const { name, options } = policy;
    return {
      ...pruned,
      pruning: { policy: name, options, settle: (turn: Turn) => scheduleOf(turn).solved },
    };
  };
}
