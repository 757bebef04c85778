// How many invocations share one row's work.

/**
 * Workgroup size for `items` independent pieces of work of one row: the smallest power of two that holds them, within
 * `least` and `most`. Enough invocations to keep many loads in flight, no more idle ones than needed.
 */
export function workgroupThreads(items: number, least = 32, most = 256): number {
  let threads = least;
  while (threads < items && threads < most) threads *= 2;
  return threads;
}
