(** The laws of the four representations. SPEC.md, "Representations" and "Invariants". *)

From Coq Require Import ZArith List Bool Lia.
From ExpertPlacement Require Import Rule Partition.
Open Scope Z_scope.

(** * Steps *)

Lemma index_of_routed E R S r e s : 0 <= e < E ->
  map_entry index_map E R S r e s = (if owner E R e s =? r then local_index E R e s else -1).
Proof. intros he. unfold map_entry. destruct (Z.ltb_spec e E); [reflexivity | lia]. Qed.

Lemma local_index_not_negative s E R e : 0 <= E -> 1 <= R -> 0 <= e < E -> 0 <= local_index E R e s.
Proof. intros hE hR he. now destruct (owner_inverts s E R e hE hR he) as ((low & _) & _). Qed.

(** * Laws *)

(** A rank's map has an entry other than -1 exactly for the experts it owns, so one map does for each expert. *)
Theorem map_has_one_owner s E R S r e : 0 <= E -> 1 <= R -> 0 <= S -> 0 <= r < R -> 0 <= e < E ->
  map_entry index_map E R S r e s <> -1 <-> owner E R e s = r.
Proof.
  intros hE hR hS hr he. rewrite index_of_routed by assumption.
  pose proof (local_index_not_negative s E R e hE hR he). destruct (Z.eqb_spec (owner E R e s) r); lia.
Qed.

(** A rank's map holds the local index of each expert that it owns, and -1 elsewhere. *)
Theorem map_agrees_with_local_index s E R S r e : 0 <= E -> 1 <= R -> 0 <= S -> 0 <= r < R -> 0 <= e < E ->
  map_entry index_map E R S r e s = (if owner E R e s =? r then local_index E R e s else -1).
Proof. intros. now apply index_of_routed. Qed.

(** All four representations say the same of every routed expert. *)
Theorem representations_agree s E R S r e : 0 <= E -> 1 <= R -> 0 <= S -> 0 <= r < R -> 0 <= e < E ->
  let entry := map_entry index_map E R S r e s in
  map_entry index_map_with_shared E R S r e s = entry /\
  map_entry index_map_with_sentinel E R S r e s = entry /\
  map_entry mask E R S r e s = (if 0 <=? entry then 1 else 0).
Proof.
  intros hE hR hS hr he entry. pose proof (local_index_not_negative s E R e hE hR he).
  unfold entry, map_entry. destruct (Z.ltb_spec e E); [| lia]. destruct (Z.leb_spec E e); [lia |].
  split; [reflexivity |]. split; [reflexivity |]. simpl andb.
  destruct (owner E R e s =? r); simpl orb.
  - destruct (Z.leb_spec 0 (local_index E R e s)); [reflexivity | lia].
  - reflexivity.
Qed.

(** Every rank holds shared expert h in the local slot h after its routed experts, and the mask has 1 for it. *)
Theorem shared_experts_follow s E R S r h : 0 <= E -> 1 <= R -> 0 <= r < R -> 0 <= h < S ->
  map_entry index_map_with_shared E R S r (E + h) s = count E R r s + h /\
  map_entry mask E R S r (E + h) s = 1.
Proof.
  intros hE hR hr hh. unfold map_entry. destruct (Z.ltb_spec (E + h) E); [lia |].
  destruct (Z.leb_spec E (E + h)); [| lia]. destruct (Z.ltb_spec (E + h) (E + S)); [| lia].
  split; [lia | reflexivity].
Qed.

(** The mask ends with 0, and the index map of length E + 1 with -1. *)
Theorem sentinels_close s E R S r : 0 <= E -> 1 <= R -> 0 <= S -> 0 <= r < R ->
  map_entry mask E R S r (map_length mask E S - 1) s = 0 /\
  map_entry index_map_with_sentinel E R S r (map_length index_map_with_sentinel E S - 1) s = -1.
Proof.
  intros hE hR hS hr. unfold map_entry, map_length.
  replace (E + S + 1 - 1) with (E + S) by lia. replace (E + 1 - 1) with E by lia.
  destruct (Z.ltb_spec (E + S) E); [lia |]. destruct (Z.ltb_spec E E); [lia |].
  destruct (Z.ltb_spec (E + S) (E + S)); [lia |]. rewrite andb_false_r. split; reflexivity.
Qed.

(** No two experts, routed or shared, have the same local slot of a rank. *)
Theorem local_slots_are_held_once s E R S r p q : 0 <= E -> 1 <= R -> 0 <= S -> 0 <= r < R ->
  0 <= p < E + S -> 0 <= q < E + S ->
  map_entry index_map_with_shared E R S r p s <> -1 ->
  map_entry index_map_with_shared E R S r p s = map_entry index_map_with_shared E R S r q s -> p = q.
Proof.
  intros hE hR hS hr hp hq held same.
  pose proof (count_not_negative s E R r hE hR ltac:(lia)) as some.
  assert (entry : forall x, 0 <= x < E + S ->
    (0 <= x < E /\ owner E R x s = r /\ start E R r s + map_entry index_map_with_shared E R S r x s * stride R s = x /\
      map_entry index_map_with_shared E R S r x s < count E R r s) \/
    (0 <= x < E /\ map_entry index_map_with_shared E R S r x s = -1) \/
    (E <= x /\ map_entry index_map_with_shared E R S r x s = count E R r s + x - E)).
  { intros x hx. unfold map_entry. destruct (Z.ltb_spec x E) as [routed | shared]; [| right; right; lia].
    simpl andb. destruct (Z.eqb_spec (owner E R x s) r) as [owned | other]; [left | right; left; lia].
    destruct (owner_inverts s E R x hE hR ltac:(lia)) as (index & stands). rewrite owned in index, stands. lia. }
  destruct (entry p hp) as [(rp & op & stand & low) | [(rp & none) | (rp & slot)]];
    destruct (entry q hq) as [(rq & oq & stand' & low') | [(rq & none') | (rq & slot')]]; rewrite <- ?same in *; lia.
Qed.
