(** The laws of ranks and experts. SPEC.md, "Invariants".

    Each theorem has the name of the invariant, and holds for all E and R without an upper limit. *)

From Coq Require Import ZArith List Bool Lia.
From ExpertPlacement Require Import Rule.
Open Scope Z_scope.

(** * Steps *)

Lemma share E R : 0 <= E -> 1 <= R ->
  E = R * (E / R) + E mod R /\ 0 <= E mod R < R /\ 0 <= E / R.
Proof.
  intros hE hR. pose proof (Z.div_mod E R ltac:(lia)). pose proof (Z.mod_pos_bound E R ltac:(lia)).
  pose proof (Z.div_pos E R hE ltac:(lia)). lia.
Qed.

Lemma floor_of a b : 0 < b -> b * (a / b) <= a < b * (a / b) + b.
Proof.
  intros hb. pose proof (Z.div_mod a b ltac:(lia)). pose proof (Z.mod_pos_bound a b hb). lia.
Qed.

Lemma least_is_min a b : least a b = Z.min a b.
Proof. unfold least. destruct (Z.ltb_spec a b); lia. Qed.

(** Two ranks of the proportional strategy: the share of a rank is E / R, rounded down or up. *)
Lemma proportional_count_bounds E R r : 0 <= E -> 1 <= R -> 0 <= r ->
  E / R <= count E R r proportional <= (E + R - 1) / R.
Proof.
  intros hE hR hr. unfold count, start.
  pose proof (floor_of (r * E) R ltac:(lia)). pose proof (floor_of ((r + 1) * E) R ltac:(lia)).
  pose proof (floor_of E R ltac:(lia)). pose proof (floor_of (E + R - 1) R ltac:(lia)).
  set (x := r * E / R) in *. set (y := (r + 1) * E / R) in *. set (f := E / R) in *.
  set (c := (E + R - 1) / R) in *.
  assert (sum : (r + 1) * E = r * E + E) by ring.
  split; apply Z.lt_succ_r; apply (Z.mul_lt_mono_pos_l R); lia.
Qed.

Lemma larger_share E R : 0 <= E -> 1 <= R ->
  (E + R - 1) / R = E / R + (if E mod R =? 0 then 0 else 1).
Proof.
  intros hE hR. destruct (share E R hE hR) as (whole & rest & _).
  destruct (Z.eqb_spec (E mod R) 0) as [none | some].
  - symmetry. apply Z.div_unique_pos with (r := R - 1); lia.
  - symmetry. apply Z.div_unique_pos with (r := E mod R - 1); lia.
Qed.

Lemma count_bounds s E R r : 0 <= E -> 1 <= R -> 0 <= r ->
  E / R <= count E R r s <= (E + R - 1) / R.
Proof.
  intros hE hR hr. destruct s; [| | apply proportional_count_bounds; assumption];
    rewrite (larger_share E R hE hR); destruct (share E R hE hR) as (_ & rest & _); unfold count;
    destruct (Z.eqb_spec (E mod R) 0); destruct (Z.ltb_spec r (E mod R)); lia.
Qed.

Lemma count_not_negative s E R r : 0 <= E -> 1 <= R -> 0 <= r -> 0 <= count E R r s.
Proof.
  intros hE hR hr. pose proof (count_bounds s E R r hE hR hr). destruct (share E R hE hR). lia.
Qed.

(** The next block begins where this one ends; no rank has to be the last one. *)
Lemma next_start s E R r : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= r ->
  start E R (r + 1) s = start E R r s + count E R r s.
Proof.
  intros hs hE hR hr. destruct s; [| now destruct hs | unfold count; lia].
  unfold start, count. rewrite !least_is_min. destruct (Z.ltb_spec r (E mod R)); lia.
Qed.

Lemma first_start s E R : is_contiguous s -> 0 <= E -> 1 <= R -> start E R 0 s = 0.
Proof.
  intros hs hE hR. destruct s; [| now destruct hs | reflexivity].
  unfold start. rewrite least_is_min. destruct (share E R hE hR). lia.
Qed.

Lemma last_end s E R : is_contiguous s -> 0 <= E -> 1 <= R -> start E R R s = E.
Proof.
  intros hs hE hR. destruct s; [| now destruct hs |].
  - unfold start. rewrite least_is_min. destruct (share E R hE hR). lia.
  - unfold start. rewrite Z.mul_comm. apply Z.div_mul. lia.
Qed.

Lemma starts_ascend s E R r q : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= r <= q ->
  start E R r s <= start E R q s.
Proof.
  intros hs hE hR hrq. replace q with (r + Z.of_nat (Z.to_nat (q - r))) by lia.
  induction (Z.to_nat (q - r)) as [| n hn]; [replace (r + Z.of_nat 0) with r by lia; lia |].
  replace (r + Z.of_nat (S n)) with (r + Z.of_nat n + 1) by lia.
  rewrite next_start by (assumption || lia).
  pose proof (count_not_negative s E R (r + Z.of_nat n) hE hR ltac:(lia)). lia.
Qed.

(** The owner of contiguous strategies is the rank whose block the expert stands in. *)
Lemma owner_block s E R e : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= e < E ->
  0 <= owner E R e s < R /\ start E R (owner E R e s) s <= e < start E R (owner E R e s + 1) s.
Proof.
  intros hs hE hR he. destruct s; [| now destruct hs |].
  - destruct (share E R hE hR) as (whole & rest & base).
    unfold owner, start. cbv zeta. rewrite !least_is_min.
    set (b := E / R) in *. set (m := E mod R) in *.
    destruct (Z.ltb_spec e (m * (b + 1))) as [early | late].
    + pose proof (floor_of e (b + 1) ltac:(lia)). set (q := e / (b + 1)) in *.
      assert (0 <= q) by (apply Z.div_pos; lia). assert (q < m) by nia.
      rewrite !Z.min_l by lia. split; nia.
    + destruct (Z.eqb_spec b 0) as [none | some]; [nia |].
      pose proof (floor_of (e - m * (b + 1)) b ltac:(lia)). set (q := (e - m * (b + 1)) / b) in *.
      assert (0 <= q) by (apply Z.div_pos; lia). rewrite !Z.min_r by lia.
      split; nia.
  - unfold owner, start. destruct (Z.eqb_spec E 0) as [none | some]; [lia |].
    pose proof (floor_of ((e + 1) * R - 1) E ltac:(lia)). set (o := ((e + 1) * R - 1) / E) in *.
    assert (0 <= o) by (apply Z.div_pos; nia). assert (o < R) by nia. split; [lia |].
    pose proof (floor_of (o * E) R ltac:(lia)). pose proof (floor_of ((o + 1) * E) R ltac:(lia)).
    set (x := o * E / R) in *. set (y := (o + 1) * E / R) in *.
    split; [apply Z.lt_succ_r |]; apply (Z.mul_lt_mono_pos_l R); nia.
Qed.

(** No two blocks of a contiguous strategy share an expert. *)
Lemma block_is_unique s E R e r q : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= r -> 0 <= q ->
  start E R r s <= e < start E R (r + 1) s -> start E R q s <= e < start E R (q + 1) s -> r = q.
Proof.
  intros hs hE hR hr hq inR inQ. destruct (Z.lt_trichotomy r q) as [less | [same | more]]; [| assumption |].
  - pose proof (starts_ascend s E R (r + 1) q hs hE hR ltac:(lia)). lia.
  - pose proof (starts_ascend s E R (q + 1) r hs hE hR ltac:(lia)). lia.
Qed.

(** * Ranks *)

(** The first rank starts at expert 0, and the last rank ends with expert E - 1. *)
Theorem ends_meet s E R : is_contiguous s -> 0 <= E -> 1 <= R ->
  start E R 0 s = 0 /\ start E R (R - 1) s + count E R (R - 1) s = E.
Proof.
  intros hs hE hR. split; [now apply first_start |].
  rewrite <- next_start by (assumption || lia). replace (R - 1 + 1) with R by lia. now apply last_end.
Qed.

(** Each rank starts where the one before it ends. *)
Theorem contiguous s E R r : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= r -> r + 1 < R ->
  start E R (r + 1) s = start E R r s + count E R r s.
Proof. intros. now apply next_start. Qed.

(** No start is negative, and none lies beyond the last expert or, for round robin, the last rank. *)
Theorem start_in_range s E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  0 <= start E R r s <= match s with round_robin => R - 1 | _ => E end.
Proof.
  intros hE hR hr.
  assert (block : is_contiguous s -> 0 <= start E R r s <= E).
  { intros hs. rewrite <- (first_start s E R) at 1 by assumption. rewrite <- (last_end s E R) at 4 by assumption.
    split; apply starts_ascend; (assumption || lia). }
  destruct s; [now apply block | unfold start; lia | now apply block].
Qed.

(** The start is r * (E // R) + min(r, E % R), or r for round robin, or the floor of r * E / R for proportional. *)
Theorem starts_follow_the_rule s E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  match s with
  | linear => start E R r s = r * (E / R) + Z.min r (E mod R)
  | round_robin => start E R r s = r
  | proportional => start E R r s * R <= r * E < (start E R r s + 1) * R
  end.
Proof.
  intros hE hR hr. destruct s; unfold start; [now rewrite least_is_min | reflexivity |].
  pose proof (floor_of (r * E) R ltac:(lia)). lia.
Qed.

(** No rank owns more than one expert more than another. *)
Theorem balanced_within_one s E R r q : 0 <= E -> 1 <= R -> 0 <= r < R -> 0 <= q < R ->
  count E R r s <= count E R q s + 1.
Proof.
  intros hE hR hr hq. pose proof (count_bounds s E R r hE hR ltac:(lia)).
  pose proof (count_bounds s E R q hE hR ltac:(lia)). pose proof (larger_share E R hE hR).
  destruct (E mod R =? 0); lia.
Qed.

(** A rank owns at least as many experts as the next one. *)
Theorem larger_shares_first s E R r : s <> proportional -> 0 <= E -> 1 <= R -> 0 <= r -> r + 1 < R ->
  count E R (r + 1) s <= count E R r s.
Proof.
  intros hs hE hR hr next. destruct s; [| | now destruct hs]; unfold count;
    destruct (Z.ltb_spec (r + 1) (E mod R)); destruct (Z.ltb_spec r (E mod R)); lia.
Qed.

(** Where R divides E, every rank owns exactly E // R experts. *)
Theorem equal_when_divisible s E R r : 0 <= E -> 1 <= R -> 0 <= r < R -> E mod R = 0 ->
  count E R r s = E / R.
Proof.
  intros hE hR hr divides. pose proof (count_bounds s E R r hE hR ltac:(lia)).
  pose proof (larger_share E R hE hR) as larger. rewrite divides in larger. simpl in larger. lia.
Qed.

(** No rank owns more than c, the ceiling of E / R: c on every rank are enough for E experts, and c - 1 are not. *)
Theorem smallest_possible_maximum s E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  let c := (E + R - 1) / R in count E R r s <= c /\ E <= c * R /\ (c - 1) * R < E.
Proof.
  intros hE hR hr c. pose proof (count_bounds s E R r hE hR ltac:(lia)).
  pose proof (floor_of (E + R - 1) R ltac:(lia)). fold c in H, H0. lia.
Qed.

(** No rank owns fewer than f, the floor of E / R, and f + 1 on every rank are more than E experts. *)
Theorem largest_possible_minimum s E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  let f := E / R in f <= count E R r s /\ E < (f + 1) * R.
Proof.
  intros hE hR hr f. pose proof (count_bounds s E R r hE hR ltac:(lia)).
  pose proof (floor_of E R ltac:(lia)). fold f in H, H0. lia.
Qed.

(** A rank is empty only where experts are fewer than ranks, and then no rank owns two. *)
Theorem empty_only_when_scarce s E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  (E < R -> count E R r s <= 1) /\ (R <= E -> 1 <= count E R r s).
Proof.
  intros hE hR hr. pose proof (count_bounds s E R r hE hR ltac:(lia)) as bounds. split; intros scarce.
  - rewrite (larger_share E R hE hR), Z.div_small in bounds by lia. destruct (E mod R =? 0); lia.
  - assert (1 <= E / R) by (apply Z.div_le_lower_bound; lia). lia.
Qed.

(** The count is E // R + (r < E % R), and the start r * (E // R) + min(r, E % R). *)
Theorem agrees_with_seed E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  count E R r linear = E / R + (if r <? E mod R then 1 else 0) /\
  start E R r linear = r * (E / R) + Z.min r (E mod R).
Proof. intros. unfold count, start. now rewrite least_is_min. Qed.

(** * Experts *)

(** Every expert's owner is a rank. *)
Theorem owner_in_range s E R e : 0 <= E -> 1 <= R -> 0 <= e < E -> 0 <= owner E R e s < R.
Proof.
  intros hE hR he. destruct s; [now apply owner_block | | now apply owner_block].
  unfold owner. apply Z.mod_pos_bound. lia.
Qed.

Lemma round_robin_count E R r i : 0 <= E -> 1 <= R -> 0 <= r < R -> 0 <= i ->
  i < count E R r round_robin <-> r + i * R < E.
Proof.
  intros hE hR hr hi. destruct (share E R hE hR) as (whole & rest & base). unfold count.
  set (b := E / R) in *. set (m := E mod R) in *. destruct (Z.ltb_spec r m); split; intros; nia.
Qed.

(** An expert stands at its local index among the experts of its owner. *)
Theorem owner_inverts s E R e : 0 <= E -> 1 <= R -> 0 <= e < E ->
  let r := owner E R e s in let i := local_index E R e s in
  0 <= i < count E R r s /\ start E R r s + i * stride R s = e.
Proof.
  intros hE hR he r i.
  assert (block : is_contiguous s -> local_index E R e s = e - start E R r s ->
    0 <= i < count E R r s /\ start E R r s + i * 1 = e).
  { intros hs local. destruct (owner_block s E R e hs hE hR he) as (rank & stands). fold r in rank, stands.
    rewrite next_start in stands by (assumption || lia). unfold i. lia. }
  destruct s; [now apply block | | now apply block].
  unfold r, i, owner, local_index, start, stride. pose proof (Z.div_mod e R ltac:(lia)).
  pose proof (Z.mod_pos_bound e R ltac:(lia)). assert (0 <= e / R) by (apply Z.div_pos; lia).
  split; [split; [assumption |]; apply round_robin_count; lia | lia].
Qed.

(** The expert at local index i of rank r is owned by r and has local index i. *)
Theorem local_index_inverts s E R r i : 0 <= E -> 1 <= R -> 0 <= r < R -> 0 <= i < count E R r s ->
  let e := start E R r s + i * stride R s in
  0 <= e < E /\ owner E R e s = r /\ local_index E R e s = i.
Proof.
  intros hE hR hr hi e.
  assert (block : is_contiguous s -> e = start E R r s + i -> 0 <= e < E /\ owner E R e s = r).
  { intros hs expert. pose proof (next_start s E R r hs hE hR ltac:(lia)) as next.
    pose proof (starts_ascend s E R 0 r hs hE hR ltac:(lia)) as first. rewrite first_start in first by assumption.
    pose proof (starts_ascend s E R (r + 1) R hs hE hR ltac:(lia)) as last. rewrite last_end in last by assumption.
    assert (range : 0 <= e < E) by lia. split; [exact range |].
    destruct (owner_block s E R e hs hE hR range) as (rank & stands).
    apply (block_is_unique s E R e); (assumption || lia). }
  destruct s.
  - destruct (block ltac:(discriminate) ltac:(unfold e, stride; lia)) as (range & owned).
    split; [exact range |]. split; [exact owned |]. unfold local_index. rewrite owned. unfold e, stride. lia.
  - pose proof (proj1 (round_robin_count E R r i hE hR hr (proj1 hi)) (proj2 hi)) as below.
    unfold e, start, stride, owner, local_index.
    split; [nia |]. rewrite Z.mod_add, Z.mod_small, Z.div_add, Z.div_small by lia. lia.
  - destruct (block ltac:(discriminate) ltac:(unfold e, stride; lia)) as (range & owned).
    split; [exact range |]. split; [exact owned |]. unfold local_index. rewrite owned. unfold e, stride. lia.
Qed.

(** A rank's range holds an expert exactly where that rank is the expert's owner, so one rank holds each. *)
Theorem covers_exactly_once s E R r e : 0 <= E -> 1 <= R -> 0 <= r < R -> 0 <= e < E ->
  let distance := e - start E R r s in
  0 <= distance < count E R r s * stride R s /\ distance mod stride R s = 0 <-> owner E R e s = r.
Proof.
  intros hE hR hr he distance.
  assert (step : 1 <= stride R s) by (destruct s; unfold stride; lia). split.
  - intros (range & divides). apply Z.div_exact in divides; [| lia].
    set (i := distance / stride R s) in *.
    assert (index : 0 <= i < count E R r s) by (split; nia).
    destruct (local_index_inverts s E R r i hE hR hr index) as (_ & owned & _).
    rewrite <- owned. f_equal. lia.
  - intros owned. destruct (owner_inverts s E R e hE hR he) as (index & stands). rewrite owned in index, stands.
    assert (far : distance = local_index E R e s * stride R s) by lia.
    rewrite far, Z.mod_mul by lia. split; [nia | reflexivity].
Qed.

(** The pair of rank and local index and the expert determine each other: each expert has one such pair. *)
Theorem experts_and_places_are_in_bijection s E R e : 0 <= E -> 1 <= R -> 0 <= e < E ->
  exists! place : Z * Z,
    0 <= fst place < R /\ 0 <= snd place < count E R (fst place) s /\
    start E R (fst place) s + snd place * stride R s = e.
Proof.
  intros hE hR he. exists (owner E R e s, local_index E R e s). split.
  - split; [now apply owner_in_range |]. now apply owner_inverts.
  - intros (r, i) (rank & index & stands). simpl in *.
    destruct (local_index_inverts s E R r i hE hR rank index) as (_ & owned & local).
    rewrite stands in owned, local. congruence.
Qed.

(** The next expert of the same rank has the next local index, and the next rank's first one has 0. *)
Theorem order_preserved s E R e : 0 <= E -> 1 <= R -> 0 <= e -> e + stride R s < E ->
  let following := e + stride R s in
  local_index E R following s =
  (if owner E R following s =? owner E R e s then local_index E R e s + 1 else 0).
Proof.
  intros hE hR he next following.
  assert (block : is_contiguous s -> stride R s = 1 ->
    (forall x, local_index E R x s = x - start E R (owner E R x s) s) ->
    local_index E R following s =
    (if owner E R following s =? owner E R e s then local_index E R e s + 1 else 0)).
  { intros hs one local. rewrite !local. unfold following in *. rewrite one in *.
    destruct (owner_block s E R e hs hE hR ltac:(lia)) as (rank & stands).
    destruct (owner_block s E R (e + 1) hs hE hR ltac:(lia)) as (rank' & stands').
    set (r := owner E R e s) in *. set (q := owner E R (e + 1) s) in *.
    destruct (Z.eqb_spec q r) as [same | other]; [rewrite same; lia |].
    destruct (Z.lt_trichotomy r q) as [less | [same | more]]; [| lia |].
    - pose proof (starts_ascend s E R (r + 1) q hs hE hR ltac:(lia)). lia.
    - pose proof (starts_ascend s E R (q + 1) r hs hE hR ltac:(lia)). lia. }
  destruct s; [now apply block | | now apply block].
  unfold following, owner, local_index, stride in *.
  replace (e + R) with (e + 1 * R) by lia. rewrite Z.mod_add, Z.eqb_refl, Z.div_add by lia. reflexivity.
Qed.

(** * Growth *)

Lemma grown_share E R : 0 <= E -> 1 <= R ->
  E mod R + 1 < R /\ (E + 1) / R = E / R /\ (E + 1) mod R = E mod R + 1 \/
  E mod R + 1 = R /\ (E + 1) / R = E / R + 1 /\ (E + 1) mod R = 0.
Proof.
  intros hE hR. destruct (share E R hE hR) as (whole & rest & base).
  destruct (Z.lt_ge_cases (E mod R + 1) R) as [less | full]; [left | right]; (split; [lia |]);
    split; symmetry.
  - apply Z.div_unique_pos with (r := E mod R + 1); lia.
  - apply Z.mod_unique_pos with (q := E / R); lia.
  - apply Z.div_unique_pos with (r := 0); lia.
  - apply Z.mod_unique_pos with (q := E / R + 1); lia.
Qed.

(** With one expert more, rank E % R owns one more, and every other rank as many as before. *)
Theorem growth_changes_one_rank s E R r : s <> proportional -> 0 <= E -> 1 <= R -> 0 <= r < R ->
  count (E + 1) R r s = count E R r s + (if r =? E mod R then 1 else 0).
Proof.
  intros hs hE hR hr.
  destruct (grown_share E R hE hR) as [(rest & base & more) | (rest & base & more)];
    (destruct s; [| | now destruct hs]); unfold count; rewrite base, more;
    repeat match goal with |- context [?x <? ?y] => destruct (Z.ltb_spec x y) end;
    destruct (Z.eqb_spec r (E mod R)); lia.
Qed.

(** With one expert more, every start stays or moves by one. *)
Theorem growth_moves_starts_by_at_most_one s E R r : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= r < R ->
  0 <= start (E + 1) R r s - start E R r s <= 1.
Proof.
  intros hs hE hR hr. destruct s; [| now destruct hs |].
  - destruct (share E R hE hR) as (_ & least_rest & _). unfold start. rewrite !least_is_min.
    destruct (grown_share E R hE hR) as [(rest & base & more) | (rest & base & more)]; rewrite base, more; lia.
  - unfold start. pose proof (floor_of (r * E) R ltac:(lia)). pose proof (floor_of (r * (E + 1)) R ltac:(lia)).
    set (x := r * E / R) in *. set (y := r * (E + 1) / R) in *.
    assert (sum : r * (E + 1) = r * E + r) by ring.
    split; apply Z.lt_succ_r; apply (Z.mul_lt_mono_pos_l R); lia.
Qed.

(** * Uniform partitions *)

(** The least number of experts to add so that R divides their number is -E % R. *)
Theorem least_redundant_experts E R : 0 <= E -> 1 <= R ->
  (E + (- E) mod R) mod R = 0 /\ forall n, 0 <= n -> (E + n) mod R = 0 -> (- E) mod R <= n.
Proof.
  intros hE hR. split.
  - rewrite Z.add_mod_idemp_r by lia. rewrite Z.add_opp_diag_r. apply Z.mod_0_l. lia.
  - intros n hn divides. apply Z.div_exact in divides; [| lia]. set (k := (E + n) / R) in *.
    replace (- E) with (n + - k * R) by lia. rewrite Z.mod_add by lia. apply Z.mod_le; lia.
Qed.
