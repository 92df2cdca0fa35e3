(** Replicas that can be held apart on ranks of equal room. SPEC.md, "Replication".

    There Gale and Ryser's condition is enough, by König's theorem: with a batch for each rank, experts for senders, and
    groups of as many replicas as there are ranks for receivers, no batch has two replicas of an expert, nor two of a
    group, and there are no more groups than a rank has slots. *)

From Coq Require Import ZArith Arith List Bool Lia.
From ExpertPlacement Require Import Replication Batches.
Import ListNotations.
Open Scope nat_scope.

(** * Steps *)

(** All replicas of all experts, one expert's after the other's. *)
Definition all_replicas (n : nat) (c : counts) : list nat :=
  concat (map (fun e => repeat e (Z.to_nat (c e))) (seq 0 n)).

Lemma all_replicas_next n c : all_replicas (S n) c = all_replicas n c ++ repeat n (Z.to_nat (c n)).
Proof.
  unfold all_replicas. rewrite seq_S, map_app, concat_app. simpl. now rewrite app_nil_r.
Qed.

Lemma all_replicas_length n c : (forall e, (e < n)%nat -> (0 <= c e)%Z) ->
  Z.of_nat (length (all_replicas n c)) = sum c n.
Proof.
  induction n as [| n hn]; intros some; [reflexivity |]. rewrite all_replicas_next, app_length, repeat_length. simpl.
  rewrite Nat2Z.inj_add, hn by (intros; apply some; lia). specialize (some n ltac:(lia)). lia.
Qed.

Lemma occurrences_of_repeat x y m : count_occ Nat.eq_dec (repeat x m) y = if Nat.eq_dec x y then m else 0.
Proof.
  induction m as [| m hm]; simpl; [now destruct (Nat.eq_dec x y) |]. rewrite hm. now destruct (Nat.eq_dec x y).
Qed.

Lemma occurrences_of_replicas n c e :
  count_occ Nat.eq_dec (all_replicas n c) e = if e <? n then Z.to_nat (c e) else 0.
Proof.
  induction n as [| n hn]; [reflexivity |]. rewrite all_replicas_next, count_occ_app, hn, occurrences_of_repeat.
  destruct (Nat.eq_dec n e) as [-> | other].
  - destruct (Nat.ltb_spec e e), (Nat.ltb_spec e (S e)); lia.
  - destruct (Nat.ltb_spec e n), (Nat.ltb_spec e (S n)); lia.
Qed.

Lemma ends_are_occurrences {A : Type} (end_of : A -> nat) r ts :
  length (filter (fun t => end_of t =? r) ts) = count_occ Nat.eq_dec (map end_of ts) r.
Proof.
  induction ts as [| t ts hts]; [reflexivity |]. simpl. destruct (Nat.eqb_spec (end_of t) r), (Nat.eq_dec (end_of t) r);
    simpl; lia.
Qed.

Definition transfers_of (experts groups : list nat) : list transfer :=
  map (fun p => Transfer (fst p) (snd p)) (combine experts groups).

Lemma ends_of_transfers experts groups : length experts = length groups ->
  map sender (transfers_of experts groups) = experts /\ map receiver (transfers_of experts groups) = groups.
Proof.
  unfold transfers_of. revert groups. induction experts as [| e experts he]; intros [| g groups]; simpl; intros same;
    try discriminate; [auto |]. destruct (he groups ltac:(lia)) as (of_experts & of_groups). split; now f_equal.
Qed.

(** The experts of a batch. *)
Definition experts_of (ps : list placed) (b : nat) : list nat :=
  map (fun p => sender (fst p)) (filter (fun p => snd p =? b) ps).

Lemma one_more_placed p ps bs e : NoDup bs ->
  count_occ Nat.eq_dec (concat (map (experts_of (p :: ps)) bs)) e =
  count_occ Nat.eq_dec (concat (map (experts_of ps) bs)) e +
  (if in_dec Nat.eq_dec (snd p) bs then if Nat.eq_dec (sender (fst p)) e then 1 else 0 else 0).
Proof.
  induction bs as [| b bs hb]; intros once; [reflexivity |]. inversion once as [| ? ? new old]; subst.
  specialize (hb old). simpl map. simpl concat. rewrite !count_occ_app, hb. unfold experts_of at 1. simpl filter.
  destruct (Nat.eqb_spec (snd p) b) as [here | other].
  - simpl map. fold (experts_of ps b).
    destruct (in_dec Nat.eq_dec (snd p) bs); [congruence |]. destruct (in_dec Nat.eq_dec (snd p) (b :: bs)) as [| out];
      [| exfalso; apply out; now left].
    simpl count_occ. fold (experts_of ps b). destruct (Nat.eq_dec (sender (fst p)) e); lia.
  - fold (experts_of ps b).
    destruct (in_dec Nat.eq_dec (snd p) bs), (in_dec Nat.eq_dec (snd p) (b :: bs)) as [among | out]; try lia.
    + exfalso. apply out. now right.
    + destruct among; [congruence | contradiction].
Qed.

Lemma occurrences_over_batches ps bs e : NoDup bs -> (forall p, In p ps -> In (snd p) bs) ->
  count_occ Nat.eq_dec (concat (map (experts_of ps) bs)) e =
  count_occ Nat.eq_dec (map (fun p => sender (fst p)) ps) e.
Proof.
  intros once. induction ps as [| p ps hps]; intros among.
  - simpl. clear. induction bs as [| b bs hb]; [reflexivity | exact hb].
  - rewrite one_more_placed by assumption. rewrite hps by (intros; apply among; now right).
    destruct (in_dec Nat.eq_dec (snd p) bs) as [| out]; [| exfalso; apply out, among; now left].
    simpl. destruct (Nat.eq_dec (sender (fst p)) e); lia.
Qed.

Lemma ends_in_a_batch_once (end_of : transfer -> nat) b (ps : list placed) :
  NoDup (map (fun p => (end_of (fst p), snd p)) ps) ->
  NoDup (map (fun p => end_of (fst p)) (filter (fun p => snd p =? b) ps)).
Proof.
  induction ps as [| p ps hps]; intros once; [constructor |]. simpl in *. inversion once as [| ? ? new old]; subst.
  destruct (Nat.eqb_spec (snd p) b) as [here | other]; [| now apply hps]. simpl. constructor; [| now apply hps].
  rewrite in_map_iff. intros (q & same & hq). apply filter_In in hq. destruct hq as (hq & batch).
  apply Nat.eqb_eq in batch. apply new. rewrite in_map_iff. exists q. split; [congruence | assumption].
Qed.

Lemma total_of_repeated room m : total_room (repeat room m) = (room * Z.of_nat m)%Z.
Proof. induction m as [| m hm]; simpl repeat; [simpl; lia |]. unfold total_room in *. simpl fold_right. lia. Qed.

Lemma descending_of_repeated room m : descending (repeat room m) = repeat room m.
Proof.
  induction m as [| m hm]; [reflexivity |].
  change (descending (repeat room (S m))) with (insert room (descending (repeat room m))). rewrite hm.
  destruct m; simpl; [reflexivity | now rewrite Z.leb_refl].
Qed.

Lemma some_is_at_most_sum f n e : (forall x, (x < n)%nat -> (0 <= f x)%Z) -> (e < n)%nat -> (f e <= sum f n)%Z.
Proof.
  induction n as [| n hn]; intros some he; simpl; [lia |].
  assert (below : (0 <= sum f n)%Z).
  { clear hn he. induction n as [| n hn]; simpl; [lia |]. pose proof (some n ltac:(lia)).
    specialize (hn ltac:(intros; apply some; lia)). lia. }
  pose proof (some n ltac:(lia)). destruct (Nat.eq_dec e n) as [-> | other]; [lia |].
  specialize (hn ltac:(intros; apply some; lia) ltac:(lia)). lia.
Qed.

(** * Law *)

(** On ranks of equal room all replicas that meet Gale and Ryser's condition can be held apart. *)
Theorem equal_ranks_hold_apart_what_meets_the_condition n num_ranks room c :
  (forall e, (e < n)%nat -> (0 <= c e)%Z) ->
  can_be_held_apart n (repeat (Z.of_nat room) num_ranks) c = true ->
  exists ranks, map fst ranks = repeat (Z.of_nat room) num_ranks /\ holds_apart n ranks /\
    forall e, (e < n)%nat -> replicas_held ranks e = c e.
Proof.
  intros some fit. unfold can_be_held_apart in fit. rewrite forallb_forall, repeat_length in fit.
  assert (each : forall e, (e < n)%nat -> (c e <= Z.of_nat num_ranks)%Z).
  { intros e he. specialize (fit num_ranks ltac:(apply in_seq; lia)). apply Z.leb_le in fit.
    unfold beyond, room_outside in fit.
    rewrite descending_of_repeated, skipn_all2 in fit by (rewrite repeat_length; lia).
    pose proof (some_is_at_most_sum (fun e => Z.max (c e - Z.of_nat num_ranks) 0) n e ltac:(intros; lia) he) as most.
    simpl in fit, most. lia. }
  assert (all : (sum c n <= Z.of_nat room * Z.of_nat num_ranks)%Z).
  { specialize (fit 0 ltac:(apply in_seq; lia)). apply Z.leb_le in fit. unfold beyond, room_outside in fit.
    simpl skipn in fit. rewrite descending_of_repeated, total_of_repeated in fit.
    rewrite (sum_extensional _ c) in fit; [assumption |]. intros e he. specialize (some e he). lia. }
  set (experts := all_replicas n c). set (groups := joined num_ranks (seq 0 (length experts))).
  assert (same : length experts = length groups) by (unfold groups, joined; now rewrite map_length, seq_length).
  set (ts := transfers_of experts groups). destruct (ends_of_transfers experts groups same) as (senders & receivers).
  fold ts in senders, receivers.
  destruct (Nat.eq_dec num_ranks 0) as [none | some_ranks].
  { subst num_ranks. exists []. split; [reflexivity |]. split; [intros r [] |]. intros e he.
    specialize (some e he). specialize (each e he). unfold replicas_held. simpl. lia. }
  destruct (koenig ts num_ranks) as (batches & length_same & (senders_once & receivers_once) & range).
  { intros r. split.
    - unfold sent, sends. rewrite ends_are_occurrences, senders. unfold experts. rewrite occurrences_of_replicas.
      destruct (Nat.ltb_spec r n) as [below | above]; [specialize (each r below) |]; lia.
    - unfold received, receives. rewrite ends_are_occurrences, receivers.
      rewrite <- (map_id groups), <- ends_are_occurrences.
      apply joined_at_most; [lia | apply seq_NoDup]. }
  set (ps := combine ts batches) in *.
  assert (placed_experts : map (fun p => sender (fst p)) ps = experts).
  { rewrite <- (map_map fst sender). unfold ps. now rewrite fst_of_combine. }
  exists (map (fun b => (Z.of_nat room, experts_of ps b)) (seq 0 num_ranks)). split; [| split].
  - rewrite map_map. simpl. clear. generalize 0 as first.
    induction num_ranks as [| m hm]; intros first; [reflexivity |]. simpl. now rewrite hm.
  - intros r hr. apply in_map_iff in hr. destruct hr as (b & <- & hb). simpl.
    split; [now apply (ends_in_a_batch_once sender) |]. split.
    + unfold experts_of. rewrite map_length, <- (map_length (fun p => receiver (fst p))).
      apply inj_le, Nat.le_trans with (length (seq 0 room)); [| now rewrite seq_length].
      apply NoDup_incl_length; [now apply (ends_in_a_batch_once receiver) |].
      intros g hg. apply in_map_iff in hg. destruct hg as (p & <- & hp). apply filter_In in hp.
      assert (group : In (receiver (fst p)) groups).
      { rewrite <- receivers. apply in_map. rewrite <- (fst_of_combine ts batches length_same). fold ps.
        now apply in_map. }
      unfold groups, joined in group. apply in_map_iff in group. destruct group as (i & <- & hi). apply in_seq in hi.
      apply in_seq. pose proof (all_replicas_length n c some) as total. fold experts in total.
      split; [lia |]. apply Nat.div_lt_upper_bound; [assumption |]. nia.
    + intros e he. unfold experts_of in he.
      assert (among : In e experts).
      { rewrite <- placed_experts. apply in_map_iff in he. destruct he as (p & <- & hp). apply filter_In in hp.
        now apply (in_map (fun p => sender (fst p))). }
      unfold experts in among. apply (count_occ_In Nat.eq_dec) in among. rewrite occurrences_of_replicas in among.
      destruct (Nat.ltb_spec e n); lia.
  - intros e he. unfold replicas_held. rewrite map_map. simpl.
    rewrite (map_ext _ (experts_of ps)) by reflexivity. rewrite occurrences_over_batches.
    + rewrite placed_experts. unfold experts. rewrite occurrences_of_replicas.
      destruct (Nat.ltb_spec e n); [| lia]. specialize (some e he). lia.
    + apply seq_NoDup.
    + intros p hp. apply in_seq. specialize (range p hp). lia.
Qed.
