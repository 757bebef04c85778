// setup.sh and .ci/run on machines made up of small scripts: nothing is installed, nothing outside a temporary folder
// is read but the scripts under test and the shell's own tools.

import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fromFileUrl, join } from "@std/path";

const root = fromFileUrl(new URL("../..", import.meta.url));
const setup = join(root, "setup.sh");
const ignore = Deno.build.os === "windows";

/** A Deno that answers for its version and its adapter, and shows what task it is handed. */
function fakeDeno(version: string): string {
  return `#!/bin/sh
case "$*" in
  *Deno.version*) echo "${version} $0" ;;
  *requestAdapter*) [ -e "$MACHINE/driver" ] ;;
  task*)
    echo "runs $0"
    echo "in $(pwd), scratch $XDG_RUNTIME_DIR, finds $(command -v deno)"
    for each; do echo "<$each>"; done
    echo "stdin: $(cat)"
    exit 7 ;;
esac
`;
}

/** An npm whose global folder may be missing, and which installs the Deno that lies beside it. */
const fakeNpm = `#!/bin/sh
echo "npm $*" >> "$MACHINE/log"
[ "$1" = prefix ] && { echo "$MACHINE/global"; exit; }
[ -e "$MACHINE/new-deno" ] || { echo "npm error: not found" >&2; exit 1; }
prefix=$MACHINE/global
while [ $# -gt 0 ]; do [ "$1" = --prefix ] && prefix=$2; shift; done
mkdir -p "$prefix/bin" && cp "$MACHINE/new-deno" "$prefix/bin/deno"
echo "added 2 packages"
`;

const fakeApt = `#!/bin/sh
echo "apt-get $*" >> "$MACHINE/log"
case "$*" in *install*) [ -e "$MACHINE/no-packages" ] || : > "$MACHINE/driver" ;; esac
`;

interface Machine {
  /** Programs on PATH, as scripts. */
  programs?: Record<string, string>;
  /** Other files, by their path in the machine's folder; scripts all the same. */
  files?: Record<string, string>;
  env?: Record<string, string>;
  args?: string[];
  stdin?: string;
}

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
  /** What npm, apt-get and sudo were asked. */
  log: string;
  /** The machine's folder, which is also the home folder, now removed. */
  folder: string;
}

/** Runs setup.sh on a machine that has nothing but the shell's tools and what is given. */
async function runSetup(
  { programs = {}, files = {}, env = {}, args = ["cairn"], stdin = "" }: Machine,
): Promise<Outcome> {
  const folder = await Deno.realPath(await Deno.makeTempDir({ prefix: "a machine " }));
  try {
    const bin = join(folder, "bin");
    await Deno.mkdir(bin);
    for (const tool of ["sh", "cat", "cp", "dirname", "env", "mkdir", "uname"]) {
      await Deno.symlink(await which(tool), join(bin, tool));
    }
    const scripts = Object.entries(programs).map(([name, text]) => [join(bin, name), text]);
    const others = Object.entries(files).map(([path, text]) => [join(folder, path), text]);
    for (const [path, text] of [...scripts, ...others]) {
      await Deno.mkdir(join(path, ".."), { recursive: true });
      await Deno.writeTextFile(path, text, { mode: 0o755 });
    }
    const child = new Deno.Command(join(bin, "sh"), {
      args: [setup, ...args],
      cwd: folder,
      clearEnv: true,
      env: { PATH: bin, HOME: folder, MACHINE: folder, ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const output = child.output();
    const writer = child.stdin.getWriter();
    // One that ends without reading closes the pipe first.
    await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
    await writer.close().catch(() => {});
    const { code, stdout, stderr } = await output;
    const log = await Deno.readTextFile(join(folder, "log")).catch(() => "");
    return { code, stdout: text(stdout), stderr: text(stderr), log, folder };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

async function which(tool: string): Promise<string> {
  const { stdout } = await new Deno.Command("sh", { args: ["-c", `command -v ${tool}`] }).output();
  return text(stdout).trim();
}

const user = { id: "#!/bin/sh\necho 1000\n" };
const superuser = { id: "#!/bin/sh\necho 0\n" };
const ready = { programs: { ...user, deno: fakeDeno("2.9.0") }, files: { driver: "" } };

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ignore, fn });
}

test("setup.sh says nothing where all is there, and hands the task over as it was given", async () => {
  const args = ["cairn", "a  b", '$HOME "q" *', "it's", "", "--", "--x"];
  const { code, stdout, stderr, log, folder } = await runSetup({ ...ready, args, stdin: "a prompt" });
  assertEquals(stderr, "");
  assertEquals(log, "");
  const deno = join(folder, "bin", "deno");
  assertEquals(stdout.split("\n"), [
    `runs ${deno}`,
    `in ${folder}, scratch /tmp, finds ${deno}`,
    ...["task", "--quiet", "--config", join(root, "deno.json"), ...args].map((each) => `<${each}>`),
    "stdin: a prompt",
    "",
  ]);
  assertEquals(code, 7);
});

test("setup.sh keeps a valid XDG_RUNTIME_DIR and replaces an invalid one", async () => {
  const scratch = async (env: Record<string, string>) => (await runSetup({ ...ready, env })).stdout;
  assertStringIncludes(await scratch({ XDG_RUNTIME_DIR: "/" }), "scratch /,");
  assertStringIncludes(await scratch({ XDG_RUNTIME_DIR: "/no/such folder" }), "scratch /tmp,");
  assertStringIncludes(await scratch({ XDG_RUNTIME_DIR: "/no/such folder", TMPDIR: "/" }), "scratch /,");
});

for (const version of ["2.9.0", "2.9.1", "2.10.0", "3.0.0", "10.0.1", "2.9.1-rc.2"]) {
  test(`setup.sh takes Deno ${version}`, async () => {
    const { stdout } = await runSetup({ ...ready, programs: { ...user, deno: fakeDeno(version) } });
    assertStringIncludes(stdout, "<cairn>");
  });
}

for (const version of ["2.8.9", "1.46.3", "0.100.0", "2.9", "", "canary"]) {
  test(`setup.sh refuses ${version ? `Deno ${version}` : "a Deno that does not tell its version"}`, async () => {
    const { code, stdout, stderr } = await runSetup({
      ...ready,
      programs: { ...user, deno: fakeDeno(version) },
    });
    assertEquals([code, stdout], [1, ""]);
    assertMatch(stderr, /^setup: Found neither Deno 2\.9\.0 or newer nor npm [^\n]+; install Deno [^\n]+\n$/);
  });
}

for (const place of [".deno/bin/deno", ".cairn/bin/deno"]) {
  test(`setup.sh finds a Deno in ~/${place}, and so does the task`, async () => {
    const { stdout, stderr, folder } = await runSetup({
      programs: { ...user, deno: fakeDeno("2.8.0") },
      files: { driver: "", [place]: fakeDeno("2.9.6") },
    });
    assertEquals(stderr, "");
    assertStringIncludes(stdout, `runs ${join(folder, place)}\n`);
    assertStringIncludes(stdout, `finds ${join(folder, place)}\n`);
  });
}

test("setup.sh finds the Deno that npm installed off PATH", async () => {
  const { stdout, log, folder } = await runSetup({
    programs: { ...user, npm: fakeNpm },
    files: { driver: "", "global/bin/deno": fakeDeno("2.9.6") },
  });
  assertStringIncludes(stdout, `runs ${join(folder, "global", "bin", "deno")}\n`);
  assertEquals(log, "npm prefix -g\n");
});

test("setup.sh installs Deno for all users where npm may, and says so", async () => {
  const { stdout, stderr, log, folder } = await runSetup({
    programs: { ...user, npm: fakeNpm, deno: fakeDeno("2.8.0") },
    files: { driver: "", "new-deno": fakeDeno("2.9.6"), "global/bin/x": "", "global/lib/x": "" },
  });
  assertStringIncludes(stdout, `runs ${join(folder, "global", "bin", "deno")}\n`);
  assertMatch(log, /^npm prefix -g\nnpm install -g [^\n]*deno@\^2\.9\.0\n$/);
  assertEquals(stderr.split("\n"), [
    "setup: installing Deno for all users: npm install -g deno@^2.9.0",
    "added 2 packages",
    "",
  ]);
});

test("setup.sh installs Deno in the home folder where npm may not do so for all users", async () => {
  const { stdout, stderr, folder } = await runSetup({
    programs: { ...user, npm: fakeNpm },
    files: { driver: "", "new-deno": fakeDeno("2.9.6") },
  });
  assertStringIncludes(stdout, `runs ${join(folder, ".cairn", "bin", "deno")}\n`);
  assertStringIncludes(stderr, `setup: installing Deno in ${folder}/.cairn: `);
});

test("setup.sh says what to do where npm fails", async () => {
  const { code, stdout, stderr } = await runSetup({
    programs: { ...user, npm: fakeNpm },
    files: { driver: "" },
  });
  assertEquals([code, stdout], [1, ""]);
  assertMatch(stderr, /setup: npm could not install Deno 2\.9\.0 or newer; install Deno [^\n]+\n$/);
});

test("setup.sh installs a Vulkan driver where it may", async () => {
  const { code, stdout, stderr, log } = await runSetup({
    programs: { ...superuser, deno: fakeDeno("2.9.6"), "apt-get": fakeApt },
    stdin: "a prompt",
  });
  assertMatch(log, /^apt-get [^\n]*update\napt-get [^\n]*install -y [^\n]+\n$/);
  assertMatch(stderr, /^setup: no Vulkan driver answers; installing [^\n]+\n$/);
  assertStringIncludes(stdout, "stdin: a prompt");
  assertEquals(code, 7);
});

test("setup.sh asks sudo for the driver where that needs no password", async () => {
  const sudo =
    '#!/bin/sh\necho "sudo $*" >> "$MACHINE/log"\n[ "$1" = -n ] && shift\n[ "$1" = true ] || "$@"\n';
  const { code, log } = await runSetup({
    programs: { ...user, deno: fakeDeno("2.9.6"), "apt-get": fakeApt, sudo },
  });
  assertMatch(log, /^sudo -n true\nsudo -n [^\n]+ update\n/);
  assertEquals(code, 7);
});

const withoutDriver: [string, Machine][] = [
  ["sudo wants a password", {
    programs: { ...user, "apt-get": fakeApt, sudo: '#!/bin/sh\necho "a password is required" >&2\nexit 1\n' },
  }],
  ["there is no sudo", { programs: { ...user, "apt-get": fakeApt } }],
  ["there is no apt-get", { programs: { ...superuser } }],
  ["the driver that is installed does not answer", {
    programs: { ...superuser, "apt-get": fakeApt },
    files: { "no-packages": "" },
  }],
];

for (const [name, { programs, files }] of withoutDriver) {
  test(`setup.sh says which driver to install where ${name}`, async () => {
    const { code, stdout, stderr } = await runSetup({
      programs: { ...programs, deno: fakeDeno("2.9.6") },
      files,
    });
    assertEquals([code, stdout], [1, ""]);
    const last = stderr.trimEnd().split("\n").at(-1)!;
    assertMatch(last, /^setup: No Vulkan driver answers\. .*apt-get install mesa-vulkan-drivers;/);
    assertStringIncludes(last, "libvulkan1 libegl1 libglvnd0 libglx0 libgl1");
  });
}

test("setup.sh tells its tasks, which are those of deno.json, where it is called without one", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(root, "deno.json")));
  for (const args of [[], ["--help"]]) {
    const { code, stdout, stderr, log } = await runSetup({ args });
    assertEquals([code, stderr, log], [0, "", ""]);
    const named = stdout.matchAll(/^ {2}(?<task>\w+) +\S/gm).map((match) => match.groups!.task);
    assertEquals([...named], Object.keys(tasks));
  }
});

/** Runs .ci/run in a repository whose setup.sh is the given script. */
async function runCi(script: string): Promise<{ code: number; last: string; output: string }> {
  const folder = await Deno.makeTempDir({ prefix: "a clone " });
  try {
    await Deno.mkdir(join(folder, ".ci"));
    await Deno.copyFile(join(root, ".ci", "run"), join(folder, ".ci", "run"));
    await Deno.writeTextFile(join(folder, "setup.sh"), script);
    const { code, stdout } = await new Deno.Command("bash", { args: [join(folder, ".ci", "run")], cwd: "/" })
      .output();
    const output = text(stdout);
    return { code, last: output.trimEnd().split("\n").at(-1)!, output };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const closings: [string, string, number, string][] = [
  ["a run that passed", 'echo "[$1] 9 passed" >&2; echo "3 passed, 0 failed"', 0, "3 passed, 0 failed"],
  ["skipped tests", 'echo "3 passed, 0 failed, 2 skipped"', 0, "3 passed, 0 failed, 2 skipped"],
  ["failures", 'echo "3 passed, 1 failed"; exit 1', 1, "3 passed, 1 failed"],
  ["a set-up that stopped", 'echo "setup: Found neither" >&2; exit 1', 1, "0 passed, 1 failed"],
  ["checks that were killed", 'echo "3 passed, 0 failed"; echo ---; kill -9 $$', 137, "0 passed, 1 failed"],
  ["a run that counted nothing", "echo done", 1, "0 passed, 1 failed"],
];

for (const [name, script, code, last] of closings) {
  test(`.ci/run closes with a count after ${name}`, async () => {
    const run = await runCi(script);
    assertEquals([run.code, run.last], [code, last]);
  });
}

test(".ci/run runs all the checks and shows both streams", async () => {
  const { output } = await runCi('pwd; echo "task $1" >&2; echo "1 passed, 0 failed"');
  assertMatch(output, /a clone [^\n]+\ntask ok\n1 passed, 0 failed\n$/);
});
