// Reading pieces of a file that must not change meanwhile.

/** An open file, read at any offset. */
export interface FileReader extends Disposable {
  /** Its path. */
  readonly path: string;
  /** Its bytes when it was opened. */
  readonly size: number;
  /**
   * Fills the bytes from an offset on. Calls may overlap; they are served one after another.
   *
   * @throws {Error} when the file ends before, or was closed.
   */
  readAt(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /**
   * Checks that the file is the same as when it was opened, by its size and time of change.
   *
   * @throws {Error} when it is not.
   */
  assertUnchanged(): Promise<void>;
  /** Closes the file. Harmless when it is closed. */
  [Symbol.dispose](): void;
}

/**
 * Opens a file for reading.
 *
 * @throws {Error} when there is no file at this path.
 */
export async function openFileReader(path: string): Promise<FileReader> {
  await assertFile(path);
  const file = await Deno.open(path);
  let opened: Deno.FileInfo;
  try {
    opened = await file.stat();
  } catch (error) {
    file.close();
    throw error;
  }
  let closed = false;
  let last: Promise<unknown> = Promise.resolve();

  const assertOpen = () => {
    if (closed) throw new Error(`${path} is closed: the checkpoint was disposed of, open it again`);
  };
  const fill = async (offset: number, bytes: Uint8Array<ArrayBuffer>) => {
    assertOpen();
    await file.seek(offset, Deno.SeekMode.Start);
    for (let done = 0; done < bytes.length;) {
      assertOpen();
      const count = await file.read(bytes.subarray(done));
      if (count === null) {
        throw new Error(
          `${path} ended at byte ${offset + done}, but had ${opened.size} bytes when it was opened: ` +
            "it was cut short meanwhile, download it again",
        );
      }
      done += count;
    }
  };

  return {
    path,
    size: opened.size,
    readAt(offset: number, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
      // Seek and read share the file's position, so they must not mix with those of another call.
      const run = last.then(() => fill(offset, bytes));
      last = run.catch(() => {});
      return run;
    },
    async assertUnchanged(): Promise<void> {
      assertOpen();
      const { size, mtime } = await file.stat();
      if (size !== opened.size || mtime?.getTime() !== opened.mtime?.getTime()) {
        throw new Error(
          `${path} changed while it was open (${opened.size} bytes before, ${size} now): ` +
            "wait until it is complete and open it again",
        );
      }
    },
    [Symbol.dispose](): void {
      if (!closed) file.close();
      closed = true;
    },
  };
}

/** Asked before opening, since to open a pipe would wait for its writer. */
async function assertFile(path: string): Promise<void> {
  let info: Deno.FileInfo;
  try {
    info = await Deno.stat(path);
  } catch (cause) {
    if (!(cause instanceof Deno.errors.NotFound)) throw cause;
    throw new Error(`There is no file ${path}, or it is a link to one that is gone: download it again`, {
      cause,
    });
  }
  if (!info.isFile) throw new Error(`${path} is not a file: put the downloaded file in its place`);
}
