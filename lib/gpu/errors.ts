// Errors of the GPU layer: each says what was asked, the limit it met and what to do.

/** A device was lost (driver reset, removed card, or `dispose`); everything pending is rejected with this. */
export class GpuLostError extends Error {
  /** Always `GpuLostError`. */
  override readonly name = "GpuLostError";
}

/** An allocation is over the caller's ceiling, over a device limit, or failed on the device. */
export class GpuMemoryError extends RangeError {
  /** Always `GpuMemoryError`. */
  override readonly name = "GpuMemoryError";
}

/** A kernel did not compile; the message shows its name and the numbered lines. */
export class KernelError extends SyntaxError {
  /** Always `KernelError`. */
  override readonly name = "KernelError";
}

/** Bytes as people read them: `3.1 MiB`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) value /= 1024, unit++;
  return `${unit === 0 ? value : value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`;
}
