(** What the counts add up to, and what no assignment of experts to ranks can do better. SPEC.md, "Invariants".

    An assignment is any function from experts to ranks, so that "the smallest possible maximum" is meant of all ways to
    place E experts on R ranks, and not of the three strategies alone. *)

From Coq Require Import ZArith List Bool Lia Permutation.
From ExpertPlacement Require Import Rule Partition.
Import ListNotations.
Open Scope Z_scope.

(** The sum of f(0), ..., f(n - 1). *)
Fixpoint total (f : Z -> Z) (n : nat) : Z :=
  match n with
  | O => 0
  | S m => total f m + f (Z.of_nat m)
  end.

(** How many of E experts the assignment gives to the rank. *)
Definition held (assignment : Z -> Z) (E r : Z) : Z :=
  Z.of_nat (length (filter (fun e => assignment e =? r) (numbers E))).

(** The exclusive prefix sums of the counts, E last. *)
Definition offset (E R r : Z) (s : strategy) : Z := if r <? R then start E R r s else E.

(** * Steps *)

Lemma total_at_most f n c : (forall k, 0 <= k < Z.of_nat n -> f k <= c) -> total f n <= Z.of_nat n * c.
Proof.
  induction n as [| n hn]; intros bound; simpl total; [lia |].
  assert (total f n <= Z.of_nat n * c) by (apply hn; intros; apply bound; lia).
  specialize (bound (Z.of_nat n) ltac:(lia)). lia.
Qed.

Lemma total_exceeds f n c : Z.of_nat n * (c - 1) < total f n -> exists k, 0 <= k < Z.of_nat n /\ c <= f k.
Proof.
  induction n as [| n hn]; simpl total; intros much; [lia |].
  destruct (Z.lt_ge_cases (f (Z.of_nat n)) c) as [small | large].
  - destruct hn as (k & range & enough); [lia |]. exists k. split; [lia | assumption].
  - exists (Z.of_nat n). split; [lia | assumption].
Qed.

Lemma total_falls_short f n c : total f n < Z.of_nat n * (c + 1) -> exists k, 0 <= k < Z.of_nat n /\ f k <= c.
Proof.
  induction n as [| n hn]; simpl total; intros little; [lia |].
  destruct (Z.lt_ge_cases c (f (Z.of_nat n))) as [large | small].
  - destruct hn as (k & range & few); [lia |]. exists k. split; [lia | assumption].
  - exists (Z.of_nat n). split; [lia | assumption].
Qed.

Lemma total_extensional f g n : (forall k, 0 <= k < Z.of_nat n -> f k = g k) -> total f n = total g n.
Proof.
  induction n as [| n hn]; intros same; [reflexivity |]. simpl total. rewrite hn by (intros; apply same; lia).
  f_equal. apply same. lia.
Qed.

Lemma total_of_sums f g n : total (fun k => f k + g k) n = total f n + total g n.
Proof. induction n as [| n hn]; [reflexivity |]. simpl total. lia. Qed.

Lemma total_of_one x n : 0 <= x ->
  total (fun k => if x =? k then 1 else 0) n = (if x <? Z.of_nat n then 1 else 0).
Proof.
  intros hx. induction n as [| n hn]; [destruct (Z.ltb_spec x (Z.of_nat 0)); simpl; lia |].
  simpl total. rewrite hn. destruct (Z.ltb_spec x (Z.of_nat n)); destruct (Z.eqb_spec x (Z.of_nat n));
    destruct (Z.ltb_spec x (Z.of_nat (S n))); lia.
Qed.

Lemma each_is_counted_once (assignment : Z -> Z) l n :
  (forall e, In e l -> 0 <= assignment e < Z.of_nat n) ->
  total (fun r => Z.of_nat (length (filter (fun e => assignment e =? r) l))) n = Z.of_nat (length l).
Proof.
  induction l as [| e l hl]; intros range.
  - simpl. clear range. induction n as [| n hn]; [reflexivity |]. simpl total. lia.
  - rewrite (total_extensional _ (fun r => (if assignment e =? r then 1 else 0) +
      Z.of_nat (length (filter (fun e => assignment e =? r) l)))).
    + rewrite total_of_sums, hl, total_of_one by (intros; apply range; simpl; auto).
      destruct (range e (or_introl eq_refl)). destruct (Z.ltb_spec (assignment e) (Z.of_nat n)); simpl length; lia.
    + intros r _. simpl filter. destruct (assignment e =? r); simpl length; lia.
Qed.

Lemma in_numbers n k : In k (numbers n) <-> 0 <= k < n.
Proof.
  unfold numbers. rewrite in_map_iff. split.
  - intros (i & <- & hi). apply in_seq in hi. lia.
  - intros hk. exists (Z.to_nat k). split; [lia |]. apply in_seq. lia.
Qed.

Lemma numbers_length n : length (numbers n) = Z.to_nat n.
Proof. unfold numbers. now rewrite List.map_length, seq_length. Qed.

Lemma nodup_map_injective {A B : Type} (f : A -> B) l :
  (forall x y, In x l -> In y l -> f x = f y -> x = y) -> NoDup l -> NoDup (map f l).
Proof.
  induction l as [| x l hl]; intros injective once; [constructor |].
  inversion once as [| ? ? new old]; subst. simpl. constructor.
  - rewrite in_map_iff. intros (y & same & hy). apply new.
    now rewrite (injective x y (or_introl eq_refl) (or_intror hy) (eq_sym same)).
  - apply hl; [| assumption]. intros; apply injective; simpl; auto.
Qed.

Lemma numbers_once n : NoDup (numbers n).
Proof. unfold numbers. apply nodup_map_injective; [intros; lia | apply seq_NoDup]. Qed.

Lemma same_members_same_length {A : Type} (l k : list A) :
  NoDup l -> NoDup k -> (forall x, In x l <-> In x k) -> length l = length k.
Proof. intros hl hk same. apply Permutation_length. now apply NoDup_Permutation. Qed.

Lemma before_first s E R : 0 <= E -> 1 <= R -> before E R 0 s = 0.
Proof.
  intros hE hR.
  destruct s; [apply (first_start linear) | apply (first_start linear) | apply (first_start proportional)];
    (assumption || discriminate).
Qed.

Lemma before_next s E R r : 0 <= E -> 1 <= R -> 0 <= r -> before E R (r + 1) s = before E R r s + count E R r s.
Proof.
  intros hE hR hr.
  destruct s; [apply (next_start linear) | apply (next_start linear) | apply (next_start proportional)];
    (assumption || discriminate).
Qed.

Lemma before_last s E R : 0 <= E -> 1 <= R -> before E R R s = E.
Proof.
  intros hE hR.
  destruct s; [apply (last_end linear) | apply (last_end linear) | apply (last_end proportional)];
    (assumption || discriminate).
Qed.

Lemma total_is_before s E R n : 0 <= E -> 1 <= R -> total (fun r => count E R r s) n = before E R (Z.of_nat n) s.
Proof.
  intros hE hR. induction n as [| n hn].
  - symmetry. now apply before_first.
  - simpl total. rewrite hn, <- before_next by lia. f_equal. lia.
Qed.

(** * Sums of counts *)

(** The counts of all ranks add up to E. *)
Theorem counts_total_num_experts s E R : 0 <= E -> 1 <= R -> total (fun r => count E R r s) (Z.to_nat R) = E.
Proof. intros hE hR. rewrite total_is_before, Z2Nat.id by lia. now apply before_last. Qed.

(** The offsets of contiguous strategies begin with 0, end with E, and each is the sum of the counts before it. *)
Theorem offsets_are_sums_of_counts s E R r : is_contiguous s -> 0 <= E -> 1 <= R -> 0 <= r <= R ->
  offset E R 0 s = 0 /\ offset E R R s = E /\ offset E R r s = total (fun q => count E R q s) (Z.to_nat r) /\
  (r < R -> offset E R r s = start E R r s /\ offset E R (r + 1) s = offset E R r s + count E R r s).
Proof.
  intros hs hE hR hr.
  assert (stands : forall q, 0 <= q <= R -> offset E R q s = start E R q s).
  { intros q hq. unfold offset. destruct (Z.ltb_spec q R); [reflexivity |]. replace q with R by lia.
    now rewrite last_end. }
  assert (same : before E R r s = start E R r s) by (destruct s; [reflexivity | now destruct hs | reflexivity]).
  split; [rewrite stands by lia; now apply first_start |].
  split; [rewrite stands by lia; now apply last_end |].
  split; [rewrite total_is_before, Z2Nat.id by lia; rewrite same; apply stands; lia |].
  intros less. split; [apply stands; lia |]. rewrite !stands by lia. apply next_start; (assumption || lia).
Qed.

(** All ranks own equally many experts exactly where R divides E. *)
Theorem uniform_exactly_when_divisible s E R : 0 <= E -> 1 <= R ->
  (forall r q, 0 <= r < R -> 0 <= q < R -> count E R r s = count E R q s) <-> E mod R = 0.
Proof.
  intros hE hR. split.
  - intros equal. pose proof (counts_total_num_experts s E R hE hR) as whole.
    pose proof (total_at_most (fun r => count E R r s) (Z.to_nat R) (count E R 0 s)) as most.
    pose proof (total_at_most (fun r => - count E R r s) (Z.to_nat R) (- count E R 0 s)) as fewest.
    assert (negative : forall f n, total (fun k => - f k) n = - total f n).
    { intros f n. induction n as [| n hn]; [reflexivity |]. simpl total. lia. }
    rewrite negative, whole in fewest. rewrite whole in most. rewrite Z2Nat.id in most, fewest by lia.
    assert (exact : E = count E R 0 s * R).
    { apply Z.le_antisymm.
      - rewrite Z.mul_comm. apply most. intros k hk. rewrite (equal k 0); lia.
      - assert (- E <= R * - count E R 0 s); [| lia]. apply fewest. intros k hk. rewrite (equal k 0); lia. }
    rewrite exact at 1. apply Z.mod_mul. lia.
  - intros divides r q hr hq. rewrite !equal_when_divisible by assumption. reflexivity.
Qed.

(** * Every assignment *)

(** The count of a rank is the number of experts whose owner it is. *)
Theorem counts_are_of_owned_experts s E R r : 0 <= E -> 1 <= R -> 0 <= r < R ->
  held (fun e => owner E R e s) E r = count E R r s.
Proof.
  intros hE hR hr. unfold held.
  rewrite (same_members_same_length _ (local_experts E R r s)).
  - unfold local_experts. rewrite List.map_length, numbers_length.
    pose proof (count_not_negative s E R r hE hR ltac:(lia)). lia.
  - apply NoDup_filter, numbers_once.
  - apply nodup_map_injective; [| apply numbers_once]. intros i j _ _ same.
    assert (1 <= stride R s) by (destruct s; unfold stride; lia). nia.
  - intros e. unfold local_experts. rewrite filter_In, in_numbers, in_map_iff. split.
    + intros (range & owned). apply Z.eqb_eq in owned. exists (local_index E R e s).
      destruct (owner_inverts s E R e hE hR range) as (index & stands). rewrite owned in index, stands.
      split; [exact stands | now apply in_numbers].
    + intros (i & <- & index). apply in_numbers in index.
      destruct (local_index_inverts s E R r i hE hR hr index) as (range & owned & _).
      split; [exact range | now apply Z.eqb_eq].
Qed.

(** The list of a rank's experts has at local index i the expert with that local index. *)
Theorem listed_in_local_order s E R r i : 0 <= E -> 1 <= R -> 0 <= r < R -> 0 <= i < count E R r s ->
  nth_error (local_experts E R r s) (Z.to_nat i) = Some (start E R r s + i * stride R s) /\
  length (local_experts E R r s) = Z.to_nat (count E R r s).
Proof.
  intros hE hR hr hi. unfold local_experts, numbers. rewrite !List.map_length, seq_length. split; [| reflexivity].
  assert (place : nth_error (seq 0 (Z.to_nat (count E R r s))) (Z.to_nat i) = Some (Z.to_nat i)).
  { rewrite (nth_error_nth' _ 0%nat) by (rewrite seq_length; lia). rewrite seq_nth by lia. reflexivity. }
  rewrite (map_nth_error _ _ _ (map_nth_error Z.of_nat _ _ place)), Z2Nat.id by lia. reflexivity.
Qed.

(** Some rank owns as many as the ceiling of E / R, so that this is the largest count. *)
Theorem largest_count_is_reached s E R : 0 <= E -> 1 <= R ->
  exists r, 0 <= r < R /\ count E R r s = (E + R - 1) / R.
Proof.
  intros hE hR. destruct (total_exceeds (fun r => count E R r s) (Z.to_nat R) ((E + R - 1) / R)) as (r & hr & much).
  - rewrite counts_total_num_experts, Z2Nat.id by lia.
    destruct (smallest_possible_maximum s E R 0 hE hR ltac:(lia)) as (_ & _ & scarce). lia.
  - exists r. rewrite Z2Nat.id in hr by lia. split; [assumption |].
    destruct (smallest_possible_maximum s E R r hE hR hr) as (most & _). lia.
Qed.

(** Some rank owns as few as the floor of E / R, so that this is the smallest count. *)
Theorem smallest_count_is_reached s E R : 0 <= E -> 1 <= R -> exists r, 0 <= r < R /\ count E R r s = E / R.
Proof.
  intros hE hR. destruct (total_falls_short (fun r => count E R r s) (Z.to_nat R) (E / R)) as (r & hr & little).
  - rewrite counts_total_num_experts, Z2Nat.id by lia.
    destruct (largest_possible_minimum s E R 0 hE hR ltac:(lia)) as (_ & plenty). lia.
  - exists r. rewrite Z2Nat.id in hr by lia. split; [assumption |].
    destruct (largest_possible_minimum s E R r hE hR hr) as (fewest & _). lia.
Qed.

Lemma all_experts_are_held assignment E R : 0 <= E -> 1 <= R ->
  (forall e, 0 <= e < E -> 0 <= assignment e < R) -> total (held assignment E) (Z.to_nat R) = E.
Proof.
  intros hE hR range. unfold held. rewrite each_is_counted_once.
  - rewrite numbers_length. lia.
  - intros e he. rewrite Z2Nat.id by lia. apply range. now apply in_numbers.
Qed.

(** However E experts are assigned to R ranks, some rank holds at least the ceiling of E / R. *)
Theorem no_assignment_has_a_smaller_maximum assignment E R : 0 <= E -> 1 <= R ->
  (forall e, 0 <= e < E -> 0 <= assignment e < R) ->
  exists r, 0 <= r < R /\ (E + R - 1) / R <= held assignment E r.
Proof.
  intros hE hR range.
  destruct (total_exceeds (held assignment E) (Z.to_nat R) ((E + R - 1) / R)) as (r & hr & much).
  - rewrite all_experts_are_held, Z2Nat.id by (assumption || lia).
    destruct (smallest_possible_maximum linear E R 0 hE hR ltac:(lia)) as (_ & _ & scarce). lia.
  - exists r. rewrite Z2Nat.id in hr by lia. now split.
Qed.

(** However E experts are assigned to R ranks, some rank holds at most the floor of E / R. *)
Theorem no_assignment_has_a_larger_minimum assignment E R : 0 <= E -> 1 <= R ->
  (forall e, 0 <= e < E -> 0 <= assignment e < R) ->
  exists r, 0 <= r < R /\ held assignment E r <= E / R.
Proof.
  intros hE hR range.
  destruct (total_falls_short (held assignment E) (Z.to_nat R) (E / R)) as (r & hr & little).
  - rewrite all_experts_are_held, Z2Nat.id by (assumption || lia).
    destruct (largest_possible_minimum linear E R 0 hE hR ltac:(lia)) as (_ & plenty). lia.
  - exists r. rewrite Z2Nat.id in hr by lia. now split.
Qed.
