(** The formulas of the partition. SPEC.md, "Formulas" and "Representations".

    They are those of expert_placement_spec/reference.py, name by name and argument by argument. Link.v, which run.py
    makes, shows by evaluation that both give the same answers. For a positive divisor [/] and [mod] of Z are floor
    division and its remainder, as [//] and [%] are in Python; no formula divides by anything else. *)

From Coq Require Import ZArith List Bool.
Import ListNotations.
Open Scope Z_scope.

Inductive strategy := linear | round_robin | proportional.

Definition is_contiguous (s : strategy) : Prop := s <> round_robin.

(** The largest E and R, and the largest value of an int32. *)
Definition MAX : Z := 2 ^ 31 - 1.

Definition least (left right : Z) : Z := if left <? right then left else right.

(** The first expert of the arithmetic progression that the rank owns. *)
Definition start (E R r : Z) (s : strategy) : Z :=
  match s with
  | round_robin => r
  | proportional => r * E / R
  | linear => r * (E / R) + least r (E mod R)
  end.

(** How many experts the rank owns. *)
Definition count (E R r : Z) (s : strategy) : Z :=
  match s with
  | proportional => start E R (r + 1) s - start E R r s
  | _ => E / R + (if r <? E mod R then 1 else 0)
  end.

(** The rank that owns the expert. *)
Definition owner (E R e : Z) (s : strategy) : Z :=
  match s with
  | round_robin => e mod R
  | proportional => ((e + 1) * R - 1) / (if E =? 0 then 1 else E)
  | linear =>
      let base := E / R in
      let remainder := E mod R in
      let boundary := remainder * (base + 1) in
      if e <? boundary then e / (base + 1)
      else remainder + (e - boundary) / (if base =? 0 then 1 else base)
  end.

(** The expert's position among its owner's experts. *)
Definition local_index (E R e : Z) (s : strategy) : Z :=
  match s with
  | round_robin => e / R
  | _ => e - start E R (owner E R e s) s
  end.

(** How many experts all smaller ranks own together; defined for rank R too, where it is E. *)
Definition before (E R r : Z) (s : strategy) : Z :=
  match s with
  | proportional => start E R r s
  | _ => r * (E / R) + least r (E mod R)
  end.

(** The distance between neighbouring experts of one rank. *)
Definition stride (R : Z) (s : strategy) : Z :=
  match s with round_robin => R | _ => 1 end.

Inductive representation := index_map | index_map_with_shared | index_map_with_sentinel | mask.

(** The entry of the rank's map at a position, in one of the four representations. *)
Definition map_entry (m : representation) (E R S r position : Z) (s : strategy) : Z :=
  let routed := position <? E in
  let expert := if routed then position else 0 in
  let owned := routed && (owner E R expert s =? r) in
  let index := if owned then local_index E R expert s else -1 in
  match m with
  | mask =>
      let shared := (E <=? position) && (position <? E + S) in
      if owned || shared then 1 else 0
  | index_map_with_shared => if routed then index else count E R r s + position - E
  | _ => index
  end.

(** The length of a map in one of the four representations. *)
Definition map_length (m : representation) (E S : Z) : Z :=
  match m with
  | index_map => E
  | index_map_with_shared => E + S
  | index_map_with_sentinel => E + 1
  | mask => E + S + 1
  end.

(** The numbers 0 .. n, in order. *)
Definition numbers (n : Z) : list Z := map Z.of_nat (seq 0 (Z.to_nat n)).

(** The global ids of the rank's experts, in local order. *)
Definition local_experts (E R r : Z) (s : strategy) : list Z :=
  map (fun i => start E R r s + i * stride R s) (numbers (count E R r s)).
