// Attention maps of a Llama, computed on the host in plain TypeScript from the checkpoint: slow, short and independent of
// the kernels.

import { isAttention, walkLayers } from "../lib/layers/mod.ts";
import { openCheckpoint } from "../lib/weights/mod.ts";
import type { Model } from "../mod.ts";

/** What a prompt's attention looks like. */
export interface AttentionMaps {
  /** By layer: the mean over the heads of what row i pays key j, [tokens, tokens], row-major, 0 above the diagonal. */
  readonly layers: readonly Float32Array[];
  /** By layer and head: what the last row pays every key. */
  readonly lastRow: readonly (readonly Float32Array[])[];
  /** Hidden states after the last norm [tokens, width], to compare with those of the GPU. */
  readonly hidden: Float32Array;
}

/** Rows of a matrix. */
interface Matrix {
  readonly width: number;
  readonly data: Float32Array;
}

/** Reads a model's weights once and gives a function from token ids to attention maps. */
export async function hostLlama(
  directory: string,
  model: Model,
): Promise<(ids: readonly number[]) => AttentionMaps> {
  const { modelType, hiddenSize } = model.config;
  if (modelType !== "llama") {
    throw new TypeError(`Only a Llama is computed on the host: the model is ${modelType}`);
  }
  const config = JSON.parse(await Deno.readTextFile(`${directory}/config.json`));
  const epsilon = Number(config.rms_norm_eps ?? 1e-6);
  const shapes = [...walkLayers(model.pipeline)].filter(isAttention).map((layer) => layer.config);
  using checkpoint = await openCheckpoint(directory);
  const read = async (name: string): Promise<Float32Array> => {
    const info = checkpoint.tensors.get(`model.${name}.weight`);
    if (!info) throw new Error(`${directory} has no tensor model.${name}.weight`);
    const values = new Float32Array(info.elements);
    await checkpoint.read(`model.${name}.weight`, "f32", (bytes, first) => {
      values.set(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4), first);
    });
    return values;
  };
  const table = await read("embed_tokens");
  const norm = await read("norm");
  const blocks = await Promise.all(shapes.map(async (_, layer) => {
    const of = (name: string) => read(`layers.${layer}.${name}`);
    return {
      attentionNorm: await of("input_layernorm"),
      query: await of("self_attn.q_proj"),
      key: await of("self_attn.k_proj"),
      value: await of("self_attn.v_proj"),
      output: await of("self_attn.o_proj"),
      feedForwardNorm: await of("post_attention_layernorm"),
      gate: await of("mlp.gate_proj"),
      up: await of("mlp.up_proj"),
      down: await of("mlp.down_proj"),
    };
  }));

  return (ids) => {
    const length = ids.length;
    const x: Matrix = { width: hiddenSize, data: new Float32Array(length * hiddenSize) };
    ids.forEach((id, i) =>
      x.data.set(table.subarray(id * hiddenSize, (id + 1) * hiddenSize), i * hiddenSize)
    );
    const lastRow: Float32Array[][] = [];
    const layers = blocks.map((block, layer) => {
      const { heads, kvHeads, headSize, rotary } = shapes[layer];
      const rows = rmsNorm(x, block.attentionNorm, epsilon);
      const queries = product(rows, block.query);
      const keys = product(rows, block.key);
      const values = product(rows, block.value);
      if (rotary) { for (const matrix of [queries, keys]) rotate(matrix, headSize, rotary.frequencies); }
      const map = new Float32Array(length * length);
      const mixed: Matrix = { width: heads * headSize, data: new Float32Array(length * heads * headSize) };
      lastRow.push([]);
      for (let head = 0; head < heads; head++) {
        const kvAt = Math.floor(head * kvHeads / heads) * headSize;
        for (let i = 0; i < length; i++) {
          const at = i * mixed.width + head * headSize;
          const weights = new Float32Array(i + 1);
          let highest = -Infinity;
          for (let j = 0; j <= i; j++) {
            let dot = 0;
            for (let c = 0; c < headSize; c++) {
              dot += queries.data[at + c] * keys.data[j * keys.width + kvAt + c];
            }
            weights[j] = dot / Math.sqrt(headSize);
            highest = Math.max(highest, weights[j]);
          }
          let sum = 0;
          for (let j = 0; j <= i; j++) sum += weights[j] = Math.exp(weights[j] - highest);
          for (let j = 0; j <= i; j++) {
            const weight = weights[j] / sum;
            map[i * length + j] += weight / heads;
            for (let c = 0; c < headSize; c++) {
              mixed.data[at + c] += weight * values.data[j * values.width + kvAt + c];
            }
          }
          if (i === length - 1) lastRow[layer].push(weights.map((weight) => weight / sum));
        }
      }
      add(x, product(mixed, block.output));
      const fed = rmsNorm(x, block.feedForwardNorm, epsilon);
      const gate = product(fed, block.gate);
      const up = product(fed, block.up);
      for (let i = 0; i < gate.data.length; i++) {
        gate.data[i] *= up.data[i] / (1 + Math.exp(-gate.data[i]));
      }
      add(x, product(gate, block.down));
      return map;
    });
    return { layers, lastRow, hidden: rmsNorm(x, norm, epsilon).data };
  };
}

/** rows · weightᵀ, the weight as checkpoints store it: [outputs, inputs]. */
function product({ width, data }: Matrix, weight: Float32Array): Matrix {
  const outputs = weight.length / width;
  const rows = data.length / width;
  const result = new Float32Array(rows * outputs);
  for (let row = 0; row < rows; row++) {
    for (let output = 0; output < outputs; output++) {
      let sum = 0;
      for (let i = 0; i < width; i++) sum += data[row * width + i] * weight[output * width + i];
      result[row * outputs + output] = sum;
    }
  }
  return { width: outputs, data: result };
}

function rmsNorm({ width, data }: Matrix, weight: Float32Array, epsilon: number): Matrix {
  const result = new Float32Array(data.length);
  for (let at = 0; at < data.length; at += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += data[at + i] ** 2;
    const scale = 1 / Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) result[at + i] = data[at + i] * scale * weight[i];
  }
  return { width, data: result };
}

/** Rotates each head's pairs (i, i + half) by their positions. */
function rotate({ width, data }: Matrix, headSize: number, frequencies: readonly number[]): void {
  const half = frequencies.length;
  for (let at = 0; at < data.length; at += headSize) {
    const position = Math.floor(at / width);
    for (let i = 0; i < half; i++) {
      const [cos, sin] = [Math.cos(position * frequencies[i]), Math.sin(position * frequencies[i])];
      const [a, b] = [data[at + i], data[at + half + i]];
      data[at + i] = a * cos - b * sin;
      data[at + half + i] = b * cos + a * sin;
    }
  }
}

function add(x: Matrix, y: Matrix): void {
  for (let i = 0; i < x.data.length; i++) x.data[i] += y.data[i];
}
