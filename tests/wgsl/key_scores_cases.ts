// Cases of meanKeys, keyScores and randomScores, and of saveSinkKeys and turnSinkKeys.

import { keyScores } from "../../wgsl/key_scores.ts";
import { meanKeys } from "../../wgsl/mean_keys.ts";
import { randomScores } from "../../wgsl/random_scores.ts";
import { saveSinkKeys, turnSinkKeys } from "../../wgsl/sink_keys.ts";
import { EXTENT_WORDS, NONE, SELECTION_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, store, type Variant, widen } from "../harness/kernel_case.ts";
import type { HostArray } from "../harness/run_kernel.ts";
import { ropeTable, rotaryFrequencies, rotate } from "../oracles/attention.ts";
import { cosinesToMean, meanDirection, positionHash } from "../oracles/key_scores.ts";
import {
  encodeRows,
  extentOf,
  LAYER,
  makeScene,
  poisoned,
  type Scene,
  sceneData,
  type SceneSetup,
  sceneView,
} from "./attention_scene.ts";

/** First row of each sequence among the packed rows; 0 for one without. */
function firstRows(scene: Scene): number[] {
  return scene.setup.sequences.map((_, s) => Math.max(0, scene.rows.findIndex((row) => row.sequence === s)));
}

function encodeSelections(scene: Scene): Uint32Array {
  const table = new Uint32Array(scene.setup.sequences.length * SELECTION_WORDS);
  const firsts = firstRows(scene);
  scene.setup.sequences.forEach(({ rows }, s) =>
    table.set([firsts[s], rows, 99, 98, 97, 96, 95, 94], s * SELECTION_WORDS)
  );
  return table;
}

/** Keys of a sequence's rows in a head. */
function rowKeys(scene: Scene, data: Record<string, HostArray>, s: number, head: number): Float64Array[] {
  const { start } = extentOf(scene, s, head);
  const slots = sceneView(scene, { ...data, values: data.keys }).slots(s, head);
  return slots.slice(start, start + scene.setup.sequences[s].rows).map(({ key }) => key);
}

function shared(scene: Scene) {
  const { kvHeads, sequences } = scene.setup;
  const { firstHead, arenaHeads } = scene;
  return { kvHeads, layer: LAYER, sequences: sequences.length, firstHead, arenaHeads };
}

/** Some keys are 0. */
function withZeros(scene: Scene): Scene {
  const { headSize, dtype } = scene.setup;
  return {
    ...scene,
    keys: () =>
      store(
        Float32Array.from(widen(scene.keys()), (value, i) => Math.floor(i / headSize) % 7 === 3 ? 0 : value),
        dtype,
      ),
  };
}

const name = ({ setup: { headSize, sequences } }: Scene) =>
  `head ${headSize}, rows ${sequences.map(({ rows }) => rows)}`;

function bytes(scene: Scene): number {
  const rows = scene.setup.sequences.reduce((sum, { rows }) => sum + rows, 0);
  return rows * scene.arenaHeads * scene.setup.headSize * (scene.setup.dtype === "f16" ? 2 : 4);
}

function meanCase(setup: SceneSetup): KernelCase {
  const scene = withZeros(makeScene(setup));
  const { dtype, headSize, kvHeads, sequences } = setup;
  return {
    family: "meanKeys",
    name: name(scene),
    kernel: meanKeys({ dtype, headSize }),
    parameters: shared(scene),
    data: () => {
      const { keys, extents } = sceneData(scene);
      const means = poisoned(sequences.length * kvHeads * headSize + 4);
      return { keys, extents, selections: encodeSelections(scene), means };
    },
    expected: (data) => {
      const means = Float64Array.from(data.means as Float32Array);
      for (let head = scene.firstHead; head < scene.firstHead + scene.arenaHeads; head++) {
        sequences.forEach((_, s) =>
          means.set(meanDirection(rowKeys(scene, data, s, head), headSize), (s * kvHeads + head) * headSize)
        );
      }
      return { means };
    },
    tolerance: 1e-5,
    work: { flops: 0, bytes: 2 * bytes(scene) },
  };
}

function scoreCase(setup: SceneSetup, score: "norm" | "difference"): KernelCase {
  const scene = withZeros(makeScene(setup));
  const { dtype, headSize, kvHeads, sequences } = setup;
  const stride = scene.rows.length + 3;
  const firsts = firstRows(scene);
  return {
    family: "keyScores",
    name: `${score}, ${name(scene)}`,
    kernel: keyScores({ dtype, headSize, score }),
    parameters: { ...shared(scene), columns: Math.max(...sequences.map(({ rows }) => rows)) + 70, stride },
    data: () => {
      const { keys, extents } = sceneData(scene);
      const means = randomArray(sequences.length * kvHeads * headSize, 5);
      // One mean is 0.
      means.fill(0, 0, headSize);
      const selections = encodeSelections(scene);
      return {
        keys,
        extents,
        selections,
        ...(score === "difference" ? { means } : {}),
        scores: poisoned(kvHeads * stride),
      };
    },
    expected: (data) => {
      const scores = Float64Array.from(data.scores as Float32Array);
      for (let head = scene.firstHead; head < scene.firstHead + scene.arenaHeads; head++) {
        sequences.forEach((_, s) => {
          const keys = rowKeys(scene, data, s, head);
          const at = (s * kvHeads + head) * headSize;
          const own = score === "norm" ? keys.map((key) => Math.hypot(...key)) : cosinesToMean(
            keys,
            Float64Array.from((data.means as Float32Array).subarray(at, at + headSize)),
          );
          scores.set(own.map((value) => -value), head * stride + firsts[s]);
        });
      }
      return { scores };
    },
    tolerance: 1e-5,
    work: { flops: 0, bytes: bytes(scene) },
  };
}

function randomCase(setup: SceneSetup, seed: number, layer: number): KernelCase {
  const scene = makeScene(setup);
  const { kvHeads, sequences } = setup;
  const stride = scene.rows.length + 3;
  const firsts = firstRows(scene);
  return {
    family: "randomScores",
    name: `seed ${seed}, ${name(scene)}`,
    kernel: randomScores(),
    parameters: {
      columns: Math.max(...sequences.map(({ rows }) => rows)) + 300,
      kvHeads,
      sequences: sequences.length,
      stride,
      layer,
      seed,
    },
    data: () => ({
      rowTable: encodeRows(scene.rows),
      selections: encodeSelections(scene),
      scores: poisoned(kvHeads * stride),
    }),
    expected: (data) => {
      const scores = Float64Array.from(data.scores as Float32Array);
      for (let head = 0; head < kvHeads; head++) {
        sequences.forEach(({ rows }, s) => {
          for (let j = 0; j < rows; j++) {
            const { position } = scene.rows[firsts[s] + j];
            scores[head * stride + firsts[s] + j] = positionHash(seed, layer, head, position);
          }
        });
      }
      return { scores };
    },
    tolerance: 0,
    work: { flops: 0, bytes: scene.rows.length * (kvHeads * 4 + 16) },
  };
}

/** Positions of a cache by (sequence, head): first those of earlier steps, then, from `start` on, this step's. */
interface SinkSetup {
  readonly dtype: "f16" | "f32";
  readonly headSize: number;
  readonly kvHeads: number;
  readonly firstHead?: number;
  readonly sinks: number;
  /** By sequence; undefined: an evicted slot. */
  readonly positions: readonly (readonly (number | undefined)[])[];
  readonly starts: readonly number[];
}

/** Extents of two layers, of which the second is meant. */
function sinkScene({ headSize, kvHeads, positions, starts, dtype, sinks }: SinkSetup) {
  const extents = new Uint32Array(2 * positions.length * kvHeads * EXTENT_WORDS).fill(3);
  const table: number[] = [5, 5];
  const places: { s: number; head: number; base: number }[] = [];
  let slots = 2;
  positions.forEach((own, s) => {
    for (let head = 0; head < kvHeads; head++) {
      extents.set(
        [slots, own.length + 1, starts[s], own.length, table.length],
        ((positions.length + s) * kvHeads + head) * EXTENT_WORDS,
      );
      places.push({ s, head, base: slots });
      table.push(...own.map((position) => position ?? NONE), 0);
      slots += own.length + 1;
    }
  });
  return {
    extents,
    places,
    slotPositions: Uint32Array.from(table),
    keys: () => store(randomArray(slots * headSize, 31, 2), dtype),
    sinkKeys: () => randomArray(positions.length * kvHeads * sinks * headSize, 32, 2),
  };
}

const sinkName = ({ headSize, sinks, positions }: SinkSetup) =>
  `head ${headSize}, ${sinks} sinks, ${positions.map((own) => own.length)} slots`;

function saveCase(setup: SinkSetup, rows: number): KernelCase {
  const { dtype, headSize, kvHeads, firstHead = 0, sinks, positions, starts } = setup;
  const scene = sinkScene(setup);
  const { extents, slotPositions } = scene;
  return {
    family: "saveSinkKeys",
    name: `${sinkName(setup)}, ${rows} rows`,
    kernel: saveSinkKeys({ dtype, headSize }),
    parameters: {
      kvHeads,
      layer: 1,
      sequences: positions.length,
      firstHead,
      arenaHeads: kvHeads - firstHead,
      sinks,
      rows,
    },
    data: () => ({ keys: scene.keys(), slotPositions, extents, sinkKeys: scene.sinkKeys().fill(Infinity) }),
    expected: (data) => {
      const saved = Float64Array.from(data.sinkKeys as Float32Array);
      const keys = widen(data.keys);
      for (const { s, head, base } of scene.places.filter((place) => place.head >= firstHead)) {
        positions[s].forEach((position, slot) => {
          if (position === undefined || position >= sinks || slot < starts[s] || slot >= starts[s] + rows) {
            return;
          }
          const key = keys.subarray((base + slot) * headSize, (base + slot + 1) * headSize);
          saved.set(key, ((s * kvHeads + head) * sinks + position) * headSize);
        });
      }
      return { sinkKeys: saved };
    },
    tolerance: 0,
    work: { flops: 0, bytes: 0 },
  };
}

function turnCase(setup: SinkSetup, rotaryLayout: "half" | "interleaved", rotarySize: number): KernelCase {
  const { dtype, headSize, kvHeads, firstHead = 0, sinks, positions } = setup;
  const scene = sinkScene(setup);
  const { extents, slotPositions } = scene;
  const frequencies = rotaryFrequencies(rotarySize);
  return {
    family: "turnSinkKeys",
    name: `${sinkName(setup)}, ${rotaryLayout} ${rotarySize}`,
    kernel: turnSinkKeys({ dtype, headSize, rotaryLayout, rotarySize }),
    parameters: {
      kvHeads,
      layer: 1,
      sequences: positions.length,
      firstHead,
      arenaHeads: kvHeads - firstHead,
      sinks,
    },
    data: () => ({
      sinkKeys: scene.sinkKeys(),
      ropeTable: ropeTable(frequencies, 40000),
      slotPositions,
      extents,
      keys: scene.keys(),
    }),
    expected: (data) => {
      const keys = widen(data.keys).slice();
      for (const { s, head, base } of scene.places.filter((place) => place.head >= firstHead)) {
        const others = positions[s].filter((position) =>
          position !== undefined && position >= sinks
        ) as number[];
        const gap = others.length ? Math.min(...others) - sinks : 0;
        positions[s].forEach((position, slot) => {
          if (position === undefined || position >= sinks) return;
          const at = ((s * kvHeads + head) * sinks + position) * headSize;
          const saved = Float64Array.from((data.sinkKeys as Float32Array).subarray(at, at + headSize));
          const turned = rotate(saved, gap, rotaryLayout, frequencies);
          // What is not rotated is stored already.
          keys.set(turned.subarray(0, rotarySize), (base + slot) * headSize);
        });
      }
      return { keys };
    },
    tolerance: dtype === "f16" ? 1e-3 : 2e-6,
    outputType: { keys: dtype },
    work: { flops: 0, bytes: 0 },
  };
}

const MIXED = [{ rows: 5, past: 0 }, { rows: 300, past: 70 }, { rows: 0, past: 9 }, { rows: 1, past: 4 }, {
  rows: 257,
  past: 0,
}];
const SCENES: readonly Omit<SceneSetup, "dtype" | "seed">[] = [
  { headSize: 4, kvHeads: 1, groupSize: 1, sequences: [{ rows: 600, past: 3 }] },
  { headSize: 12, kvHeads: 3, groupSize: 2, sequences: MIXED, ragged: 3 },
  { headSize: 96, kvHeads: 4, groupSize: 1, sequences: MIXED, firstHead: 1, arenaHeads: 2 },
  { headSize: 256, kvHeads: 1, groupSize: 1, sequences: [{ rows: 70, past: 1 }] },
];

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);
const SINKS: readonly Omit<SinkSetup, "dtype">[] = [
  { headSize: 4, kvHeads: 1, sinks: 1, positions: [[0, 1]], starts: [0] },
  {
    headSize: 12,
    kvHeads: 3,
    firstHead: 1,
    sinks: 4,
    // No gap; only sinks; nothing; reused slots out of order; a far window.
    positions: [range(0, 90), [0, 1, 2], [], [0, 1, 702, 3, undefined, 2, 700, 701], [
      ...range(0, 4),
      undefined,
      ...range(30000, 30100),
    ]],
    starts: [2, 1, 0, 5, 0],
  },
];

/** Cases for the tests. */
export function cases({ dtype }: Variant): KernelCase[] {
  return [
    ...SCENES.flatMap((scene, i) => {
      const setup = { ...scene, dtype, seed: i + 11 };
      return [
        meanCase(setup),
        scoreCase(setup, "norm"),
        scoreCase(setup, "difference"),
        randomCase(setup, i * 0x7fffffff, i * 5),
      ];
    }),
    ...SINKS.flatMap((sinks) => {
      const setup = { ...sinks, dtype };
      return [
        saveCase(setup, 1),
        saveCase(setup, 1000),
        turnCase(setup, "half", sinks.headSize),
        turnCase(setup, "interleaved", sinks.headSize),
        turnCase(setup, "half", 2),
      ];
    }),
  ];
}
