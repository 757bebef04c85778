// Gumbel noise from a counter: the same numbers for the same (seed, position, token id), whatever ran before.

/**
 * WGSL: `gumbel(seedLow, seedHigh, position, id) -> f32` is -log(-log(u)) for u uniform in (0, 1), between -3.2 and
 * `GUMBEL_LIMIT`. The hash is pcg4d (Jarzynski and Olano, "Hash Functions for GPU Rendering", JCGT 9(3), 2020) and its
 * fourth word h gives u = 1 - (h + 1/2) / 2^32.
 *
 * What decides a draw are the largest values, where u is near 1 and an f32 u has 24 bits only. So -log(u) is
 * computed from 1 - u there, by the series of 2 artanh(v / (2 - v)) = -log(1 - v), which keeps all 32 bits.
 */
export const SAMPLE_GUMBEL = `
const GUMBEL_LIMIT = 23.0;

fn pcg4d(counter: vec4<u32>) -> vec4<u32> {
  var v = counter * 1664525u + 1013904223u;
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  v ^= v >> vec4<u32>(16u);
  v.x += v.y * v.w;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v.w += v.y * v.z;
  return v;
}

fn gumbel(seedLow: u32, seedHigh: u32, position: u32, id: u32) -> f32 {
  let h = pcg4d(vec4<u32>(seedLow, seedHigh, position, id)).w;
  let upper = h < 0x80000000u;
  // 1 - u in the upper half of u, u itself in the lower one: both in [2^-33, 1/2].
  let v = (f32(select(~h, h, upper)) + 0.5) * ${2 ** -32};
  let s = v / (2.0 - v);
  let q = s * s;
  let series = 2.0 * s * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 +
    q * (1.0 / 11.0 + q * (1.0 / 13.0)))))));
  return -log(select(-log(v), series, upper));
}
`;
