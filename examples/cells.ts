// Results that are kept in files, so that a long measurement can go on after a break or be split over several runs.

/** Runs work, or takes its result from where it was kept. */
export type Cells = <T>(name: string, work: () => Promise<T>) => Promise<T>;

/** Keeps results in a folder, by name and by what they were measured with; `""` keeps nothing. */
export async function keptCells(folder: string, settings: unknown): Promise<Cells> {
  if (folder === "") return (_, work) => work();
  const bytes = new TextEncoder().encode(JSON.stringify(settings));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex().slice(0, 12);
  await Deno.mkdir(folder, { recursive: true });
  return async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    const path = `${folder}/${name}_${digest}.json`;
    try {
      return JSON.parse(await Deno.readTextFile(path));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    const result = await work();
    // Another run may be reading: a file is there whole or not at all.
    const part = `${path}.${Deno.pid}`;
    await Deno.writeTextFile(part, JSON.stringify(result));
    await Deno.rename(part, path);
    return result;
  };
}
