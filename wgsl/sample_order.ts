// How the sampling kernels order tokens: by logit, larger first, then by id, lower first. Both become u32, so that
// thresholds and ties are exact whatever the device does to floats.

/**
 * WGSL: `orderKey(f32) -> u32` grows with its argument and is never 0, so that 0 marks an absent token. NaN and
 * -infinity get the key of the lowest finite float, `LOWEST_KEY`: a token that is never chosen unless all are such.
 * `orderedFloat` is its inverse and always finite. `placeOf(id)` (ids below 2^24 - 1) shrinks as the id grows, `idAt`
 * is its inverse; (key, place) pairs are then compared like two-word numbers by `precedes`.
 */
export const SAMPLE_ORDER = `
const NONE = 0xffffffffu;
const LOWEST_KEY = 0x00800000u;
const HIGHEST_KEY = 0xff7fffffu;

fn orderKey(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  // -0 has the key of +0.
  let negative = bits > 0x80000000u;
  let key = select(0x80000000u | magnitude, ~bits, negative);
  return select(clamp(key, LOWEST_KEY, HIGHEST_KEY), LOWEST_KEY, magnitude > 0x7f800000u);
}

fn orderedFloat(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key & 0x7fffffffu, key >= 0x80000000u));
}

fn placeOf(id: u32) -> u32 { return 0xffffffu - id; }
fn idAt(place: u32) -> u32 { return 0xffffffu - place; }

fn precedes(a: vec2<u32>, b: vec2<u32>) -> bool { return a.x > b.x || (a.x == b.x && a.y > b.y); }
`;
