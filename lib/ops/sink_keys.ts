// Keys of a text's first tokens that are rotated anew when tokens behind them are evicted.

import { type OpDefinition, resource, type Trace } from "../graph/mod.ts";
import { saveSinkKeys as saveKernel, turnSinkKeys as turnKernel } from "../../wgsl/sink_keys.ts";
import { arenaName, arenasOf, type KeyValueStore, sinkKeysName } from "./kv_layout.ts";
import { type Rotary, rotaryTable } from "./rotary.ts";

interface SinkKeys {
  readonly store: KeyValueStore;
  /** Positions below are sinks. */
  readonly sinks: number;
}

const saveOp: OpDefinition<SinkKeys> = {
  kind: "saveSinkKeys",
  lower({ attributes: { store, sinks } }, emit): void {
    const { target } = emit;
    const kernel = saveKernel({ dtype: target.cacheType, headSize: store.headSize });
    arenasOf(store, target).forEach((arena, i) =>
      emit.dispatch(
        kernel,
        [
          resource(arenaName(store.name, "keys", i)),
          resource(store.positions),
          resource(store.extents),
          resource(sinkKeysName(store.layer)),
        ],
        () => ({
          kvHeads: store.kvHeads,
          layer: store.layer,
          sequences: target.sequences,
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          sinks,
          // A decode step has one row a sequence, whose slot may stand among others.
          rows: target.phase === "decode" ? 1 : target.longest,
        }),
      )
    );
  },
};

/** Saves the keys of the step's sinks in a layer's cache, as they were stored. */
export function saveSinkKeys(trace: Trace, options: SinkKeys): void {
  trace.append(saveOp, [], [], options);
}

const turnOp: OpDefinition<SinkKeys & { readonly rotary: Rotary }> = {
  kind: "turnSinkKeys",
  lower({ attributes: { store, sinks, rotary } }, emit): void {
    const { target } = emit;
    const { headSize } = store;
    const { layout, size } = rotary;
    const kernel = turnKernel({ dtype: target.cacheType, headSize, rotaryLayout: layout, rotarySize: size });
    arenasOf(store, target).forEach((arena, i) =>
      emit.dispatch(
        kernel,
        [
          resource(sinkKeysName(store.layer)),
          resource(`rotary.${rotary.name}`),
          resource(store.positions),
          resource(store.extents),
          resource(arenaName(store.name, "keys", i)),
        ],
        () => ({
          kvHeads: store.kvHeads,
          layer: store.layer,
          sequences: target.sequences,
          firstHead: arena.firstHead,
          arenaHeads: arena.heads,
          sinks,
        }),
      )
    );
  },
};

/** Rotates the sinks of a layer's cache anew, so that they stand right before the oldest other token. */
export function turnSinkKeys(trace: Trace, options: SinkKeys & { readonly rotary: Rotary }): void {
  const { rotary } = options;
  trace.constants.set(`rotary.${rotary.name}`, () => rotaryTable(rotary));
  trace.append(turnOp, [], [], options);
}
