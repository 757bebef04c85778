// The versions that `--version` and `info` tell.

/** Version of the package; a test holds it equal to that of deno.json, which is not readable where Cairn is installed. */
export const VERSION = "0.1.0";
