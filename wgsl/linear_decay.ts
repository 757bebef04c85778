// What the kernels of linear attention share: sizes, loads of views, decays, and the mark of a state's last position.
//
//   o_t = S_t^T q_t     S_t = decay * S_(t-1) + k_t v_t^T     S is [keySize, valueSize] by KV head
//
// Decays are factors <= 1, made from differences of logarithms between a later and an earlier row; so nothing overflows.

import { unroll } from "./kernel.ts";

/**
 * What a state is multiplied by between rows: nothing; exp(slope * positions between) by KV head; or exp of a logarithm
 * that every row has.
 */
export type LinearDecay = "none" | "position" | "token";

/** Largest key and value size of a head. */
export const MAX_LINEAR_SIZE = 256;

/** Rows of a tile: those of the table of tiles. */
export const LINEAR_TILE = 64;

/** Words (four numbers) of a block of value columns that has a mark of its own. */
const BLOCK_WORDS = 4;

/**
 * Value columns in blocks: their number, and words of each (the last may have fewer). A workgroup that changes a state
 * owns a block, and so its mark.
 */
export function columnBlocks(valueSize: number): { readonly blocks: number; readonly words: number } {
  const blocks = Math.ceil(valueSize / (4 * BLOCK_WORDS));
  return { blocks, words: Math.ceil(valueSize / 4 / blocks) };
}

/**
 * Numbers of a sequence's state: [kvHeads][keySize][valueSize], then a mark [in use, position / 4096, position % 4096, 0] for
 * each KV head and block of columns.
 */
export function linearStateSize(kvHeads: number, keySize: number, valueSize: number): number {
  return kvHeads * (keySize * valueSize + 4 * columnBlocks(valueSize).blocks);
}

/**
 * Checks sizes of heads, by name.
 *
 * @throws {RangeError} when one is not a multiple of 4 from 4 to 256.
 */
export function checkLinearSizes(sizes: Readonly<Record<string, number>>): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (!(value >= 4 && value <= MAX_LINEAR_SIZE && value % 4 === 0)) {
      throw new RangeError(
        `Linear attention takes ${name} as a multiple of 4 from 4 to ${MAX_LINEAR_SIZE}: current value is ${value}`,
      );
    }
  }
}

/** Type of a binding whose four numbers from a multiple of 4 on are read at once, if its columns stand so (`aligned`). */
export function fourArray(aligned: boolean): string {
  return aligned ? "array<vec4<f32>>" : "array<f32>";
}

/** `fn NAMEFour(at: u32) -> vec4<f32>`: four numbers of `name`, a binding of {@linkcode fourArray}. */
export function loadFour(name: string, aligned: boolean): string {
  const value = aligned
    ? `${name}[at / 4u]`
    : `vec4<f32>(${name}[at], ${name}[at + 1u], ${name}[at + 2u], ${name}[at + 3u])`;
  return `fn ${name}Four(at: u32) -> vec4<f32> { return ${value}; }\n`;
}

/**
 * `fn decayOver(slope: f32, positions: u32) -> f32`, and the marks: `fn markOf(position: u32) -> vec4<f32>`, `fn
 * positionOf(mark: vec4<f32>) -> u32`. Positions stand in two floats that are exact, never as bit patterns.
 */
export const POSITION_DECAY = `fn decayOver(slope: f32, positions: u32) -> f32 {
  return exp(max(slope * f32(positions), -200.0));
}
fn markOf(position: u32) -> vec4<f32> {
  return vec4<f32>(1.0, f32(position / 4096u), f32(position % 4096u), 0.0);
}
fn positionOf(mark: vec4<f32>) -> u32 {
  return u32(mark.y) * 4096u + u32(mark.z);
}
`;

/** `fn logDecayOf(row: u32, head: u32) -> f32`: a row's own; what is below -200 is 0 as a factor. */
export const TOKEN_DECAY = `fn logDecayOf(row: u32, head: u32) -> f32 {
  return clamp(decays[row * params.decayStride + params.decayOffset + head], -200.0, 0.0);
}
`;

/** Components of a vector. */
export const COMPONENTS: readonly string[] = ["x", "y", "z", "w"];

/** Sums a rank-one product: `sums` + i gets component i of the vectors `factors` times `vector`, for four each. */
export function outerProduct(
  sums: (i: number) => string,
  factors: readonly string[],
  vector: string,
): string {
  return unroll(
    factors.length * 4,
    (i) =>
      `${sums(i)} = fma(vec4<f32>(${factors[Math.floor(i / 4)]}.${COMPONENTS[i % 4]}), ${vector}, ${
        sums(i)
      });`,
  );
}
