// The SiLU activation x * sigmoid(x) as WGSL text.

/**
 * `fn silu(x: f32) -> f32`. exp overflows f32 from 88.7 on and WGSL promises nothing about infinities, so the exponent
 * is held at 80: below x = -80 the result is x * 1.8e-35 where the exact value is still smaller.
 */
export const SILU = `fn silu(x: f32) -> f32 {
  return x / (1.0 + exp(min(-x, 80.0)));
}
`;
