(** The formulas in arithmetic of a fixed width. SPEC.md, "no_intermediate_out_of_range".

    An operation has a result where it is between 0 and the largest number of the type, and none elsewhere; a
    division by 0 has none. So a formula that has a result computed nothing out of range on the way, in the branches
    that it took. The formulas of Rule.v are written again in such operations, and the theorem says that they give the
    same answers. *)

From Coq Require Import ZArith Bool Lia.
From ExpertPlacement Require Import Rule Partition.
Open Scope Z_scope.

(** The largest numbers of uint32 and uint64. *)
Definition UINT32_MAX : Z := 2 ^ 32 - 1.
Definition UINT64_MAX : Z := 2 ^ 64 - 1.

(** The largest number of the type that the strategy is computed in. *)
Definition widest (s : strategy) : Z :=
  match s with proportional => UINT64_MAX | _ => UINT32_MAX end.

(** * Operations *)

Definition fitting (limit x : Z) : option Z := if (0 <=? x) && (x <=? limit) then Some x else None.

Definition plus (limit x y : Z) : option Z := fitting limit (x + y).
Definition minus (limit x y : Z) : option Z := fitting limit (x - y).
Definition times (limit x y : Z) : option Z := fitting limit (x * y).
Definition over (limit x y : Z) : option Z := if y =? 0 then None else fitting limit (x / y).
Definition rest (limit x y : Z) : option Z := if y =? 0 then None else fitting limit (x mod y).

Definition bind (x : option Z) (f : Z -> option Z) : option Z :=
  match x with Some y => f y | None => None end.

Notation "'let*' x := e 'in' f" := (bind e (fun x => f)) (at level 200, x name, right associativity).

(** * Formulas *)

Definition start_within (limit E R r : Z) (s : strategy) : option Z :=
  match s with
  | round_robin => Some r
  | proportional => let* product := times limit r E in over limit product R
  | linear =>
      let* base := over limit E R in
      let* remainder := rest limit E R in
      let* product := times limit r base in
      plus limit product (least r remainder)
  end.

Definition count_within (limit E R r : Z) (s : strategy) : option Z :=
  match s with
  | proportional =>
      let* next := plus limit r 1 in
      let* after := start_within limit E R next s in
      let* first := start_within limit E R r s in
      minus limit after first
  | _ =>
      let* base := over limit E R in
      let* remainder := rest limit E R in
      plus limit base (if r <? remainder then 1 else 0)
  end.

Definition owner_within (limit E R e : Z) (s : strategy) : option Z :=
  match s with
  | round_robin => rest limit e R
  | proportional =>
      let* next := plus limit e 1 in
      let* product := times limit next R in
      let* dividend := minus limit product 1 in
      over limit dividend (if E =? 0 then 1 else E)
  | linear =>
      let* base := over limit E R in
      let* remainder := rest limit E R in
      let* larger := plus limit base 1 in
      let* boundary := times limit remainder larger in
      if e <? boundary then over limit e larger
      else
        let* distance := minus limit e boundary in
        let* ranks := over limit distance (if base =? 0 then 1 else base) in
        plus limit remainder ranks
  end.

Definition local_index_within (limit E R e : Z) (s : strategy) : option Z :=
  match s with
  | round_robin => over limit e R
  | _ =>
      let* rank := owner_within limit E R e s in
      let* first := start_within limit E R rank s in
      minus limit e first
  end.

(** * Steps *)

Lemma fits limit x : 0 <= x <= limit -> fitting limit x = Some x.
Proof. intros hx. unfold fitting. destruct (Z.leb_spec 0 x), (Z.leb_spec x limit); (reflexivity || lia). Qed.

Lemma over_fits limit x y : 0 <= x <= limit -> 1 <= y -> over limit x y = Some (x / y).
Proof.
  intros hx hy. unfold over. destruct (Z.eqb_spec y 0); [lia |]. apply fits.
  pose proof (Z.div_pos x y ltac:(lia) ltac:(lia)). pose proof (floor_of x y ltac:(lia)). nia.
Qed.

Lemma rest_fits limit x y : 0 <= x <= limit -> 1 <= y -> rest limit x y = Some (x mod y).
Proof.
  intros hx hy. unfold rest. destruct (Z.eqb_spec y 0); [lia |]. apply fits.
  pose proof (Z.mod_pos_bound x y ltac:(lia)). pose proof (Z.mod_le x y ltac:(lia) ltac:(lia)). lia.
Qed.

(** What a formula of Partition.v says about ranks holds for rank R, too, where the proportional count asks for it. *)
Lemma start_fits s E R r : 0 <= E <= MAX -> 1 <= R <= MAX -> 0 <= r <= R ->
  start_within (widest s) E R r s = Some (start E R r s).
Proof.
  change MAX with 2147483647. intros hE hR hr.
  destruct s; unfold start_within, widest; [| reflexivity |].
  - change UINT32_MAX with 4294967295. destruct (share E R ltac:(lia) ltac:(lia)) as (whole & least_rest & base).
    rewrite over_fits, rest_fits by lia. simpl bind. unfold times. rewrite fits by nia. simpl bind.
    unfold plus. rewrite fits; [reflexivity |]. rewrite least_is_min. nia.
  - change UINT64_MAX with 18446744073709551615. unfold times. rewrite fits by nia. simpl bind.
    rewrite over_fits by nia. reflexivity.
Qed.

Lemma count_fits s E R r : 0 <= E <= MAX -> 1 <= R <= MAX -> 0 <= r < R ->
  count_within (widest s) E R r s = Some (count E R r s).
Proof.
  intros hE hR hr.
  assert (shares : s <> proportional -> count_within (widest s) E R r s = Some (count E R r s)).
  { change MAX with 2147483647 in *. intros hs.
    destruct (share E R ltac:(lia) ltac:(lia)) as (whole & least_rest & base).
    destruct s; [| | now destruct hs]; unfold count_within, widest; change UINT32_MAX with 4294967295;
      rewrite over_fits, rest_fits by lia; simpl bind; unfold plus; (rewrite fits; [reflexivity |]);
      destruct (r <? E mod R); nia. }
  destruct s; [now apply shares | now apply shares |].
  pose proof (start_fits proportional E R r hE hR ltac:(lia)) as first_fits.
  pose proof (start_fits proportional E R (r + 1) hE hR ltac:(lia)) as after_fits.
  unfold count_within, plus, widest in *. rewrite fits by (unfold UINT64_MAX; change MAX with 2147483647 in *; lia).
  unfold bind. rewrite after_fits, first_fits. unfold minus. rewrite fits; [reflexivity |].
  pose proof (count_not_negative proportional E R r ltac:(lia) ltac:(lia) ltac:(lia)) as some. unfold count in some.
  pose proof (starts_ascend proportional E R (r + 1) R ltac:(discriminate) ltac:(lia) ltac:(lia) ltac:(lia)) as last.
  rewrite last_end in last by (discriminate || lia).
  pose proof (starts_ascend proportional E R 0 r ltac:(discriminate) ltac:(lia) ltac:(lia) ltac:(lia)) as first.
  rewrite first_start in first by (discriminate || lia).
  unfold UINT64_MAX. change MAX with 2147483647 in *. lia.
Qed.

Lemma owner_fits s E R e : 0 <= E <= MAX -> 1 <= R <= MAX -> 0 <= e < E ->
  owner_within (widest s) E R e s = Some (owner E R e s).
Proof.
  change MAX with 2147483647. intros hE hR he.
  destruct s; unfold owner_within, widest.
  - change UINT32_MAX with 4294967295. destruct (share E R ltac:(lia) ltac:(lia)) as (whole & least_rest & base).
    rewrite over_fits, rest_fits by lia. simpl bind. unfold plus. rewrite fits by nia. simpl bind.
    unfold times. rewrite fits by nia. simpl bind. unfold owner. cbv zeta.
    set (b := E / R) in *. set (m := E mod R) in *.
    destruct (Z.ltb_spec e (m * (b + 1))) as [early | late]; [apply over_fits; lia |].
    unfold minus. rewrite fits by nia. simpl bind.
    assert (divisor : 1 <= (if b =? 0 then 1 else b)) by (destruct (Z.eqb_spec b 0); lia).
    rewrite over_fits by nia. simpl bind. apply fits.
    pose proof (floor_of (e - m * (b + 1)) _ ltac:(apply Z.lt_le_trans with (2 := divisor); lia)) as floor.
    pose proof (Z.div_pos (e - m * (b + 1)) (if b =? 0 then 1 else b) ltac:(lia) ltac:(lia)). nia.
  - change UINT32_MAX with 4294967295. apply rest_fits; lia.
  - change UINT64_MAX with 18446744073709551615. unfold plus. rewrite fits by lia. simpl bind.
    unfold times. rewrite fits by nia. simpl bind. unfold minus. rewrite fits by nia. simpl bind.
    unfold owner. destruct (Z.eqb_spec E 0); [lia |]. apply over_fits; nia.
Qed.

Lemma local_index_fits s E R e : 0 <= E <= MAX -> 1 <= R <= MAX -> 0 <= e < E ->
  local_index_within (widest s) E R e s = Some (local_index E R e s).
Proof.
  intros hE hR he.
  assert (block : is_contiguous s ->
    (let* rank := owner_within (widest s) E R e s in
     let* first := start_within (widest s) E R rank s in minus (widest s) e first) =
    Some (e - start E R (owner E R e s) s)).
  { intros hs. rewrite owner_fits by assumption. simpl bind.
    destruct (owner_block s E R e hs ltac:(lia) ltac:(lia) he) as (rank & stands & _).
    rewrite start_fits by lia. simpl bind. apply fits.
    pose proof (starts_ascend s E R 0 (owner E R e s) hs ltac:(lia) ltac:(lia) ltac:(lia)) as first.
    rewrite first_start in first by (assumption || lia).
    destruct s; unfold widest, UINT32_MAX, UINT64_MAX; change MAX with 2147483647 in *; lia. }
  destruct s; [now apply block | | now apply block].
  unfold local_index_within, widest, UINT32_MAX. change MAX with 2147483647 in *. apply over_fits; lia.
Qed.

(** * Law *)

(** Every intermediate is at least 0 and fits uint32 (uint64 under the proportional strategy), each answer int32. *)
Theorem no_intermediate_out_of_range s E R : 0 <= E <= MAX -> 1 <= R <= MAX ->
  (forall r, 0 <= r < R ->
    count_within (widest s) E R r s = Some (count E R r s) /\ 0 <= count E R r s <= MAX /\
    start_within (widest s) E R r s = Some (start E R r s) /\ 0 <= start E R r s <= MAX) /\
  (forall e, 0 <= e < E ->
    owner_within (widest s) E R e s = Some (owner E R e s) /\ 0 <= owner E R e s <= MAX /\
    local_index_within (widest s) E R e s = Some (local_index E R e s) /\ 0 <= local_index E R e s <= MAX).
Proof.
  intros hE hR. split.
  - intros r hr. split; [now apply count_fits |].
    pose proof (smallest_possible_maximum s E R r ltac:(lia) ltac:(lia) hr) as (most & _ & scarce).
    pose proof (count_not_negative s E R r ltac:(lia) ltac:(lia) ltac:(lia)).
    pose proof (start_in_range s E R r ltac:(lia) ltac:(lia) hr).
    split; [split; [assumption |]; nia |]. split; [apply start_fits; lia |]. destruct s; lia.
  - intros e he. pose proof (owner_in_range s E R e ltac:(lia) ltac:(lia) he).
    destruct (owner_inverts s E R e ltac:(lia) ltac:(lia) he) as (index & stands).
    pose proof (start_in_range s E R (owner E R e s) ltac:(lia) ltac:(lia) ltac:(assumption)).
    split; [now apply owner_fits |]. split; [lia |]. split; [now apply local_index_fits |].
    destruct s; unfold stride in stands; nia.
Qed.
