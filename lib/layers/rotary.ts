// Frequencies of rotary embeddings, plain and scaled.

import type { Rotary, RotaryLayout } from "../ops/mod.ts";

/** Scaling of a rotary embedding for contexts longer than it was trained on. */
export type RotaryScaling =
  | { readonly type: "none" }
  /** All frequencies divided by `factor` (position interpolation, Chen et al. 2023). */
  | { readonly type: "linear"; readonly factor: number }
  /** Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1). */
  | {
    readonly type: "llama3";
    readonly factor: number;
    readonly lowFrequencyFactor: number;
    readonly highFrequencyFactor: number;
    readonly originalContext: number;
  };

/** Arguments of {@linkcode rotaryEmbedding}. */
export interface RotaryOptions {
  /** Base of the frequencies. */
  readonly theta: number;
  /** Components of a head that rotate; even. */
  readonly size: number;
  /** Positions to be covered. */
  readonly positions: number;
  /** Pairing. Default: `half`. */
  readonly layout?: RotaryLayout;
  /** Scaling. Default: none. */
  readonly scaling?: RotaryScaling;
}

/** θ^(-2i/size) by pair i, scaled, in radians a position. */
export function rotaryFrequencies({ theta, size, scaling = { type: "none" } }: RotaryOptions): number[] {
  return Array.from({ length: size / 2 }, (_, i) => {
    const frequency = theta ** (-2 * i / size);
    if (scaling.type === "none") return frequency;
    if (scaling.type === "linear") return frequency / scaling.factor;
    const { factor, lowFrequencyFactor: low, highFrequencyFactor: high, originalContext } = scaling;
    const wavelength = 2 * Math.PI / frequency;
    if (wavelength < originalContext / high) return frequency;
    if (wavelength > originalContext / low) return frequency / factor;
    const smooth = (originalContext / wavelength - low) / (high - low);
    return (1 - smooth) * frequency / factor + smooth * frequency;
  });
}

/**
 * A rotary embedding (Su et al. 2021).
 *
 * @throws {RangeError} when `size` is odd or not positive, or `theta` is not positive.
 */
export function rotaryEmbedding(options: RotaryOptions): Rotary {
  const { theta, size, positions, layout = "half", scaling = { type: "none" } } = options;
  if (!Number.isInteger(size) || size < 2 || size % 2 !== 0) {
    throw new RangeError(`Rotary size must be even and at least 2: current value is ${size}`);
  }
  if (!(theta > 0)) throw new RangeError(`Rotary theta must be positive: current value is ${theta}`);
  const key = Object.values(scaling).join("_");
  return {
    name: `${layout}_${size}_${theta}_${positions}_${key}`,
    layout,
    size,
    frequencies: rotaryFrequencies(options),
    positions,
  };
}
