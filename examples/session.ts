// A session keeps its cache: the second call feeds only what is new. A fork goes on by itself.
//
//   deno run -A examples/session.ts

import { loadModel, openGpu, session } from "../mod.ts";

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
