// Calls of the command line inside a test.

import { main } from "../../lib/cli/main.ts";
import { type FakeIo, fakeIo, type FakeIoOptions } from "./fake_io.ts";

/** How a call ended. */
export interface Call extends FakeIo {
  /** Exit code. */
  readonly code: number;
}

/** Runs the command line in this process. */
export async function cairn(args: readonly string[], options: FakeIoOptions = {}): Promise<Call> {
  const fake = fakeIo(options);
  const code = await main(args, fake.io);
  return {
    io: fake.io,
    interrupt: fake.interrupt,
    writes: fake.writes,
    stdout: fake.stdout,
    stderr: fake.stderr,
    code,
  };
}
