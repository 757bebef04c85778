// Cases of plainQueries, queryMeans, queryCovariances, turnStatistics, expectedLogits and expectedScores.

import { expectedLogits, expectedScores } from "../../wgsl/expected_attention.ts";
import {
  plainQueries,
  queryCovariances,
  queryMeans,
  type RotatedSpec,
  turnStatistics,
} from "../../wgsl/query_statistics.ts";
import { SELECTION_WORDS } from "../../wgsl/tables.ts";
import { type KernelCase, randomArray, type Variant, widen } from "../harness/kernel_case.ts";
import { ropeTable, rotaryFrequencies, rotate } from "../oracles/attention.ts";
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

/** A mean turn over some positions ahead: not of length 1. */
const AHEAD = 7;

/** First row of each sequence among the packed rows. */
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

const name = ({ setup: { headSize, sequences }, heads }: Scene) =>
  `${heads} heads of ${headSize}, rows ${sequences.map(({ rows }) => rows)}`;
const work = { flops: 0, bytes: 0 };

/** The mean over positions after `position` of a rotated vector. */
function meanRotation(
  vector: Float64Array,
  position: number,
  { rotaryLayout, rotarySize }: RotatedSpec,
): Float64Array {
  const frequencies = rotaryFrequencies(rotarySize);
  if (rotaryLayout === "none") return vector;
  const mean = new Float64Array(vector.length);
  for (let step = 1; step <= AHEAD; step++) {
    rotate(vector, position + step, rotaryLayout, frequencies).forEach((x, d) => mean[d] += x / AHEAD);
  }
  return mean;
}

function tables({ rotaryLayout, rotarySize }: RotatedSpec): Record<string, Float32Array> {
  if (rotaryLayout === "none") return {};
  const frequencies = rotaryFrequencies(rotarySize);
  const mean = (of: (angle: number) => number, frequency: number) =>
    Array.from({ length: AHEAD }, (_, i) => of((i + 1) * frequency)).reduce((a, b) => a + b) / AHEAD;
  return {
    ropeTable: ropeTable(frequencies, 3000),
    ahead: Float32Array.from([...frequencies].flatMap((f) => [mean(Math.cos, f), mean(Math.sin, f)])),
  };
}

function plainCase(scene: Scene, spec: RotatedSpec): KernelCase {
  const { heads, rows, qStride, qOffset } = scene;
  const { headSize } = spec;
  const { ahead: _, ...table } = tables(spec);
  return {
    family: "plainQueries",
    name: `${spec.rotaryLayout} ${spec.rotarySize}, ${name(scene)}`,
    kernel: plainQueries(spec),
    parameters: { rows: rows.length, heads, qStride, qOffset },
    data: () => ({
      q: scene.q(),
      ...table,
      rowTable: encodeRows(rows),
      plain: poisoned(rows.length * heads * headSize + 3),
    }),
    expected: (data) => {
      const view = sceneView(scene, { ...data, keys: new Float32Array(), values: new Float32Array() });
      const plain = Float64Array.from(data.plain as Float32Array);
      rows.forEach(({ position }, r) => {
        for (let head = 0; head < heads; head++) {
          const turned = rotate(
            view.query(r, head),
            -position,
            spec.rotaryLayout,
            rotaryFrequencies(spec.rotarySize),
          );
          plain.set(turned, (r * heads + head) * headSize);
        }
      });
      return { plain };
    },
    tolerance: 2e-6,
    work,
  };
}

/** Queries that count, by sequence and head. */
function counted(scene: Scene, plain: Float32Array, s: number, head: number, sinks: number): Float64Array[] {
  const { headSize } = scene.setup;
  return scene.rows.flatMap(({ sequence, position }, r) => {
    const at = (r * scene.heads + head) * headSize;
    return sequence === s && position >= sinks ? [Float64Array.from(plain.subarray(at, at + headSize))] : [];
  });
}

function meanOf(queries: readonly Float64Array[], headSize: number): Float64Array {
  return Float64Array.from(
    { length: headSize },
    (_, d) => queries.reduce((sum, query) => sum + query[d], 0) / Math.max(1, queries.length),
  );
}

function statisticsCases(scene: Scene, sinks: number): KernelCase[] {
  const { heads, rows, setup: { headSize, sequences, seed } } = scene;
  const pairs = sequences.length * heads;
  const parameters = { heads, sequences: sequences.length, sinks };
  const inputs = () => ({
    plain: randomArray(rows.length * heads * headSize, seed, 3),
    rowTable: encodeRows(rows),
    selections: encodeSelections(scene),
  });
  const each = (at: (s: number, head: number, pair: number) => void) =>
    sequences.forEach((_, s) => {
      for (let head = 0; head < heads; head++) at(s, head, s * heads + head);
    });
  return [
    {
      family: "queryMeans",
      name: `${sinks} sinks, ${name(scene)}`,
      kernel: queryMeans(headSize),
      parameters,
      data: () => ({ ...inputs(), means: poisoned(pairs * headSize + 3) }),
      expected: (data) => {
        const means = Float64Array.from(data.means as Float32Array);
        each((s, head, pair) =>
          means.set(
            meanOf(counted(scene, data.plain as Float32Array, s, head, sinks), headSize),
            pair * headSize,
          )
        );
        return { means };
      },
      tolerance: 1e-5,
      work,
    },
    {
      family: "queryCovariances",
      name: `${sinks} sinks, ${name(scene)}`,
      kernel: queryCovariances(headSize),
      parameters,
      data: () => ({
        ...inputs(),
        // Any centre will do.
        means: randomArray(pairs * headSize, seed + 1),
        covariances: poisoned(pairs * headSize ** 2 + 3),
      }),
      expected: (data) => {
        const covariances = Float64Array.from(data.covariances as Float32Array);
        const means = data.means as Float32Array;
        each((s, head, pair) => {
          const own = counted(scene, data.plain as Float32Array, s, head, sinks);
          for (let i = 0; i < headSize; i++) {
            for (let j = 0; j < headSize; j++) {
              const all = own.reduce(
                (sum, query) =>
                  sum + (query[i] - means[pair * headSize + i]) * (query[j] - means[pair * headSize + j]),
                0,
              );
              covariances[(pair * headSize + i) * headSize + j] = all / Math.max(1, own.length);
            }
          }
        });
        return { covariances };
      },
      tolerance: 1e-5,
      work,
    },
  ];
}

function turnCase(scene: Scene, spec: RotatedSpec): KernelCase {
  const { heads, rows, setup: { headSize, sequences, seed } } = scene;
  const pairs = sequences.length * heads;
  return {
    family: "turnStatistics",
    name: `${spec.rotaryLayout} ${spec.rotarySize}, ${name(scene)}`,
    kernel: turnStatistics(spec),
    parameters: { heads, sequences: sequences.length },
    data: () => ({
      means: randomArray(pairs * headSize, seed),
      covariances: randomArray(pairs * headSize ** 2, seed + 1),
      ...tables(spec),
      rowTable: encodeRows(rows),
      selections: encodeSelections(scene),
      turnedMeans: poisoned(pairs * headSize),
      turnedCovariances: poisoned(pairs * headSize ** 2),
    }),
    expected: (data) => {
      const turnedMeans = Float64Array.from(data.turnedMeans as Float32Array);
      const turnedCovariances = Float64Array.from(data.turnedCovariances as Float32Array);
      const means = Float64Array.from(data.means as Float32Array);
      const covariances = Float64Array.from(data.covariances as Float32Array);
      sequences.forEach((_, s) => {
        const last = rows.findLast(({ sequence }) => sequence === s);
        if (!last) return;
        for (let pair = s * heads; pair < (s + 1) * heads; pair++) {
          const turned = (vector: Float64Array) => meanRotation(vector, last.position, spec);
          turnedMeans.set(turned(means.slice(pair * headSize, (pair + 1) * headSize)), pair * headSize);
          const lines = Array.from({ length: headSize }, (_, i) => {
            const at = (pair * headSize + i) * headSize;
            return turned(covariances.slice(at, at + headSize));
          });
          for (let j = 0; j < headSize; j++) {
            turned(Float64Array.from(lines, (line) => line[j])).forEach((value, i) =>
              turnedCovariances[(pair * headSize + i) * headSize + j] = value
            );
          }
        }
      });
      return { turnedMeans, turnedCovariances };
    },
    tolerance: 5e-6,
    work,
  };
}

/** Slots of a sequence's rows. */
function rowSlots(scene: Scene, view: ReturnType<typeof sceneView>, s: number, kvHead: number) {
  const { start } = extentOf(scene, s, kvHead);
  return view.slots(s, kvHead).slice(start, start + scene.setup.sequences[s].rows);
}

function scoreCases(scene: Scene, sinks: number, valueNorms: boolean): KernelCase[] {
  const { heads, firstHead, arenaHeads, rows, setup } = scene;
  const { dtype, headSize, kvHeads, groupSize, sequences, seed } = setup;
  const stride = rows.length + 3;
  const firsts = firstRows(scene);
  const pairs = sequences.length * heads;
  const shared = { kvHeads, layer: LAYER, sequences: sequences.length, firstHead, arenaHeads, stride };
  const owned = Array.from({ length: arenaHeads }, (_, i) => firstHead + i);
  return [
    {
      family: "expectedLogits",
      name: name(scene),
      kernel: expectedLogits({ dtype, headSize, groupSize }),
      parameters: { ...shared, columns: Math.max(...sequences.map(({ rows }) => rows)) + 70 },
      data: () => {
        const { keys, extents } = sceneData(scene);
        return {
          keys,
          extents,
          selections: encodeSelections(scene),
          means: randomArray(pairs * headSize, seed),
          covariances: randomArray(pairs * headSize ** 2, seed + 1),
          logits: poisoned(heads * stride),
        };
      },
      expected: (data) => {
        const view = sceneView(scene, { ...data, values: data.keys });
        const logits = Float64Array.from(data.logits as Float32Array);
        const means = widen(data.means);
        const covariances = widen(data.covariances);
        for (const kvHead of owned) {
          sequences.forEach((_, s) => {
            rowSlots(scene, view, s, kvHead).forEach(({ key }, j) => {
              for (let head = kvHead * groupSize; head < (kvHead + 1) * groupSize; head++) {
                const pair = s * heads + head;
                let z = 0;
                for (let a = 0; a < headSize; a++) {
                  z += means[pair * headSize + a] * key[a] / Math.sqrt(headSize);
                  for (let b = 0; b < headSize; b++) {
                    z += key[a] * covariances[(pair * headSize + a) * headSize + b] * key[b] / (2 * headSize);
                  }
                }
                logits[head * stride + firsts[s] + j] = z;
              }
            });
          });
        }
        return { logits };
      },
      tolerance: 1e-5,
      work,
    },
    {
      family: "expectedScores",
      name: `${sinks} sinks, ${name(scene)}${valueNorms ? ", value norms" : ""}`,
      kernel: expectedScores({ dtype, headSize, groupSize, valueNorms }),
      parameters: { ...shared, sinks, epsilon: 0.125 },
      data: () => {
        const { values, extents } = sceneData(scene);
        return {
          // Some of them far beyond the range of exp.
          logits: randomArray(heads * stride, seed, 200),
          ...(valueNorms ? { values, extents } : {}),
          rowTable: encodeRows(rows),
          selections: encodeSelections(scene),
          scores: poisoned(kvHeads * stride),
        };
      },
      expected: (data) => {
        const { keys, values } = sceneData(scene);
        const view = sceneView(scene, { ...data, keys, values });
        const scores = Float64Array.from(data.scores as Float32Array);
        const logits = data.logits as Float32Array;
        for (const kvHead of owned) {
          sequences.forEach(({ rows: count }, s) => {
            const at = Array.from({ length: count }, (_, j) => firsts[s] + j);
            const seen = at.filter((row) => rows[row].position >= sinks);
            const slots = rowSlots(scene, view, s, kvHead);
            at.forEach((row, j) => {
              let attention = 0;
              for (let head = kvHead * groupSize; head < (kvHead + 1) * groupSize; head++) {
                const own = (i: number) => logits[head * stride + i];
                const most = Math.max(...seen.map(own));
                const all = seen.reduce((sum, i) => sum + Math.exp(own(i) - most), 0);
                attention += Math.exp(own(row) - most) / all / groupSize;
              }
              const norm = valueNorms ? Math.hypot(...slots[j].value) : 1;
              scores[kvHead * stride + row] = rows[row].position >= sinks ? (attention + 0.125) * norm : 0;
            });
          });
        }
        return { scores };
      },
      tolerance: 2e-5,
      work,
    },
  ];
}

const MIXED = [{ rows: 5, past: 0, position: 0 }, { rows: 131, past: 70 }, { rows: 0, past: 9 }, {
  rows: 1,
  past: 4,
}, {
  rows: 40,
  past: 0,
  position: 0,
}];
const SCENES: readonly (Omit<SceneSetup, "dtype" | "seed"> & { readonly rotated: number })[] = [
  { headSize: 8, kvHeads: 1, groupSize: 2, sequences: MIXED, rotated: 8 },
  { headSize: 20, kvHeads: 3, groupSize: 2, sequences: MIXED, firstHead: 1, arenaHeads: 2, rotated: 12 },
  {
    headSize: 128,
    kvHeads: 1,
    groupSize: 1,
    sequences: [{ rows: 70, past: 2, position: 2900 }],
    rotated: 128,
  },
];

/** Cases for the tests. */
export function cases({ dtype }: Variant): KernelCase[] {
  return SCENES.flatMap(({ rotated, ...setup }, i) => {
    const scene = makeScene({ ...setup, dtype, seed: i + 41 });
    const { headSize } = setup;
    const specs: RotatedSpec[] = [
      { headSize, rotaryLayout: "half", rotarySize: rotated },
      { headSize, rotaryLayout: "interleaved", rotarySize: rotated },
      { headSize, rotaryLayout: "none", rotarySize: 0 },
    ];
    return [
      ...specs.flatMap((spec) => [plainCase(scene, spec), turnCase(scene, spec)]),
      ...[0, 4, 1000].flatMap((sinks) => statisticsCases(scene, sinks)),
      ...scoreCases(scene, 0, true),
      ...scoreCases(scene, 3, false).slice(1),
    ];
  });
}
