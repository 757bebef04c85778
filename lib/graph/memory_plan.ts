// Memory by lifetime: values that never live at the same time share a buffer.

import type { Dispatch } from "./dispatch.ts";
import { placementOf, type Value } from "./value.ts";

/** Which buffer each value has. */
export interface MemoryPlan {
  /** Bytes of each buffer. */
  readonly slots: readonly number[];
  /** Buffer index by id of the root value. */
  readonly slotOf: ReadonlyMap<number, number>;
  /** Sum of the slots. */
  readonly bytes: number;
}

/** Bytes of a root value's buffer. */
function bytesOf(value: Value): number {
  return value.rows.capacity * value.width * 4;
}

/**
 * Assigns buffers: in order of first use, each value takes the smallest free buffer that holds it, or grows the largest
 * free one, or gets a new one. A value lives from its first to its last use. Values in `keep` live to the end, and so do
 * those that one segment leaves to another, because a segment may be replayed again on what another left.
 */
export function planMemory(dispatches: readonly Dispatch[], keep: readonly Value[]): MemoryPlan {
  const lives = new Map<number, { value: Value; segment: string; first: number; last: number }>();
  dispatches.forEach((dispatch, i) => {
    for (const operand of dispatch.operands) {
      if (operand.type !== "value") continue;
      const { root } = placementOf(operand.value);
      const life = lives.get(root.id);
      if (!life) lives.set(root.id, { value: root, segment: dispatch.segment, first: i, last: i });
      else if (life.segment !== dispatch.segment) life.last = Infinity;
      else life.last = Math.max(life.last, i);
    }
  });
  for (const value of keep) {
    const life = lives.get(placementOf(value).root.id);
    if (life) life.last = Infinity;
  }
  const slots: { bytes: number; freeAfter: number }[] = [];
  const slotOf = new Map<number, number>();
  for (const { value, first, last } of lives.values()) {
    const need = bytesOf(value);
    const free = slots.map((slot, index) => ({ slot, index })).filter(({ slot }) => slot.freeAfter < first);
    const fitting = free.filter(({ slot }) =>
      slot.bytes >= need
    ).sort((a, b) => a.slot.bytes - b.slot.bytes)[0];
    const largest = free.sort((a, b) => b.slot.bytes - a.slot.bytes)[0];
    const chosen = fitting ?? largest;
    if (chosen) {
      chosen.slot.bytes = Math.max(chosen.slot.bytes, need);
      chosen.slot.freeAfter = last;
      slotOf.set(value.id, chosen.index);
    } else {
      slotOf.set(value.id, slots.length);
      slots.push({ bytes: need, freeAfter: last });
    }
  }
  const bytes = slots.map((slot) => slot.bytes);
  return { slots: bytes, slotOf, bytes: bytes.reduce((a, b) => a + b, 0) };
}
