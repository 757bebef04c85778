// How a recurrent state says which token stands in one of its places: four numbers, all zero where none does. Positions
// are kept as two small floats, because a state is made of numbers: bits of an integer would be denormals, which a
// device may flush to zero.

/**
 * WGSL functions: `positionTag(position)` makes a tag, `hasTag(tag)` says whether a token stands there, and
 * `taggedPosition(tag)` is its original position, exact below 2^32.
 */
export const POSITION_TAG = `fn positionTag(position: u32) -> vec4<f32> {
  return vec4<f32>(1.0, f32(position / 4096u), f32(position % 4096u), 0.0);
}
fn hasTag(tag: vec4<f32>) -> bool { return tag.x != 0.0; }
fn taggedPosition(tag: vec4<f32>) -> u32 { return u32(tag.y) * 4096u + u32(tag.z); }`;
