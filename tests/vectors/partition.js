// Checks spec/vectors/partition.json with a partition of its own, written from SPEC.md: node partition.js FILE
// It prints how many cases hold and ends with 0, or names the first that does not and ends with 1.
"use strict";

const MAX = 2n ** 31n - 1n;
const refuse = (kind) => { throw Object.assign(new Error(kind), { kind }); };
const upTo = (end) => Array.from({ length: Number(end) }, (_, index) => BigInt(index));
const min = (one, other) => (one < other ? one : other);

// BigInt: r * E needs up to 62 bits.
function partition({ num_experts, num_ranks, strategy, num_shared_experts = 0 }) {
  const [E, R, S] = [num_experts, num_ranks, num_shared_experts].map(BigInt);
  if (!["linear", "round_robin", "proportional"].includes(strategy)) refuse("wrong_value");
  if (E < 0n || E > MAX || R < 1n || R > MAX) refuse("wrong_value");
  const within = (id, end) => { const one = BigInt(id); return 0n <= one && one < end ? one : refuse("no_such_id"); };
  const base = E / R, rest = E % R, step = strategy === "round_robin" ? R : 1n;
  const first = (r) => strategy === "round_robin" ? r : strategy === "linear" ? r * base + min(r, rest) : r * E / R;
  const size = (r) => strategy === "proportional" ? first(r + 1n) - first(r) : base + (r < rest ? 1n : 0n);
  const owns = (e) => {
    if (strategy === "round_robin") return e % R;
    if (strategy === "proportional") return ((e + 1n) * R - 1n) / E;
    const edge = rest * (base + 1n);
    return e < edge ? e / (base + 1n) : rest + (e - edge) / base;
  };
  const at = (e) => (e - first(owns(e))) / step;
  const map = (r) => { const own = within(r, R); return upTo(E).map((e) => (owns(e) === own ? at(e) : -1n)); };
  const experts = (r) => { const own = within(r, R); return upTo(size(own)).map((index) => first(own) + index * step); };
  return {
    is_uniform: () => rest === 0n,
    count: (r) => size(within(r, R)), start: (r) => first(within(r, R)), experts, local_experts: experts,
    owner: (e) => owns(within(e, E)), local_index: (e) => at(within(e, E)),
    counts: () => upTo(R).map(size), starts: () => upTo(R).map(first),
    owners: () => upTo(E).map(owns), local_indices: () => upTo(E).map(at),
    offsets: () => (strategy === "round_robin" ? refuse("wrong_value") : [...upTo(R).map(first), E]),
    expert_map: map,
    expert_map_with_shared: (r) => [...map(r), ...upTo(S).map((h) => size(BigInt(r)) + h)],
    expert_map_with_sentinel: (r) => [...map(r), -1n],
    expert_mask: (r) => [...map(r).map((index) => (index < 0n ? 0n : 1n)), ...upTo(S).map(() => 1n), 0n],
  };
}

const WHOLE = ["is_uniform", "counts", "starts", "owners", "local_indices", "offsets"];
const ON_EXPERTS = ["owner", "local_index"];
const asJson = (value) => JSON.stringify(value, (_, one) => (typeof one === "bigint" ? Number(one) : one));

function check({ input, result, expected, error }) {
  if (result === "refused") {
    let kind = "none";
    try {
      const made = partition(input);
      if (input.call) made[input.call.name](input.call.rank ?? input.call.expert);
    } catch (thrown) { kind = thrown.kind ?? String(thrown); }
    return kind === error ? "" : `error is ${kind}, expected ${error}`;
  }
  if (result !== "valid") return `result is ${result}`;
  const made = partition(input);
  for (const [name, value] of Object.entries(expected)) {
    if (!(name in made)) return `${name} is unknown`;
    const ids = ON_EXPERTS.includes(name) ? input.experts : input.ranks;
    const answer = asJson(WHOLE.includes(name) ? made[name]() : ids.map((id) => made[name](id)));
    if (answer !== asJson(value)) return `${name} is ${answer}, expected ${asJson(value)}`;
  }
  return "";
}

const file = JSON.parse(require("fs").readFileSync(process.argv[2], "utf8"));
if (file.number_of_cases !== file.cases.length) {
  console.error(`the file has ${file.cases.length} cases, expected ${file.number_of_cases}`);
  process.exit(1);
}
for (const one of file.cases) {
  const wrong = check(one);
  if (wrong) {
    console.error(`case ${one.id}: ${wrong}`);
    process.exit(1);
  }
}
console.log(`${file.cases.length} cases hold`);
