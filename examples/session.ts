// A session keeps its cache: the second call feeds only what is new. A fork goes on by itself, and what is saved goes on in
// another process.
//
//   deno run -A examples/session.ts

import { loadModel, openGpu, restoreSession, session } from "../mod.ts";

using gpu = await openGpu();
using model = await loadModel(gpu, "examples/models/novel-llama");
using story = session(model);
const first = await story.generate("The door was open, and", { maxTokens: 24, seed: 1 }).record;
console.log(`The door was open, and${first.text}`);
using other = await story.fork();
for (const [name, branch, seed] of [["one way", story, 2], ["another", other, 3]] as const) {
  const record = await branch.generate(" Then she", { maxTokens: 24, seed }).record;
  console.log(`\n${name}: Then she${record.text}`);
  console.error(`${record.usage.promptTokens} tokens fed, ${branch.ids.length} in the session`);
}

const file = await Deno.makeTempFile({ suffix: ".session" });
await Deno.writeFile(file, await story.save());
using later = await restoreSession(model, await Deno.readFile(file));
const { text } = await later.generate(" At last", { maxTokens: 24, seed: 4 }).record;
console.log(`\nlater: At last${text}`);
await Deno.remove(file);
