// Another policy for every layer.

import type { Turn } from "../../layers/mod.ts";
import type { KvPolicy, LayerSchedule, PolicyShape, Schedule } from "./policy.ts";
import { fedTokens } from "./slot_budget.ts";
import { solvedSlots } from "./slot_schedule.ts";

/** What a layer does that keeps everything. */
function everything(turn: Turn, layer: number): LayerSchedule {
  const { tokens } = turn;
  const past = Math.ceil(turn.past?.[layer] ?? 0);
  const capacity = past + tokens + fedTokens(turn);
  return {
    rows: tokens,
    window: 1,
    scored: 1,
    sinks: 0,
    keep: tokens - 1,
    keepSlots: tokens - 1,
    past,
    capacity,
  };
}

/**
 * Lets every layer have a policy of its own, or none, in which case it keeps everything. A budget is that of the whole
 * model, of which a layer has what it would have if all layers had its policy. `choose` gets the index of a softmax layer
 * and their number, and is asked again and again.
 *
 * @throws {TypeError} when a policy drops hidden rows, on which the next layers depend; once a model is pruned.
 */
export function perLayer(choose: (layer: number, layers: number) => KvPolicy | undefined): KvPolicy {
  const policiesOf = ({ layers }: PolicyShape) =>
    Array.from({ length: layers }, (_, layer) => choose(layer, layers));
  return {
    name: "per-layer",
    options: {},
    rules(shape) {
      return policiesOf(shape).map((policy, layer) => {
        const rule = policy?.rules(shape)[layer] ?? {};
        if (policy?.rules(shape).some(({ prefill }) => prefill?.dropsRows)) {
          throw new TypeError(
            `${policy.name} drops hidden rows, which every later layer would lack: it goes with whole models, not by layer`,
          );
        }
        return rule;
      });
    },
    schedule(shape, turn, evicts): Schedule {
      const known = new Map<KvPolicy, Schedule>();
      const schedules = policiesOf(shape).map((policy) => {
        if (policy && !known.has(policy)) known.set(policy, policy.schedule(shape, turn, evicts));
        return policy && known.get(policy);
      });
      const layers = schedules.map((schedule, layer) => schedule?.layers[layer] ?? everything(turn, layer));
      return {
        layers,
        capped: schedules.some((schedule) => schedule?.capped),
        solved: solvedSlots(turn, layers.map(({ capacity, past }) => capacity - past)),
      };
    },
  };
}
