(** Greedy replication makes the largest share least. SPEC.md, "Replication".

    Experts are the numbers below n, and each has a load of at least 0 and a number of replicas. A share is a load over
    a number of replicas; two shares a / b and c / d are compared as a * d and c * b. Loads are integers here; rational
    ones are integers after multiplication by their common denominator, which changes no comparison. *)

From Coq Require Import ZArith List Bool Lia Permutation.
Import ListNotations.
Open Scope Z_scope.

(** The number of replicas of each expert. *)
Definition counts := nat -> Z.

Definition one_each : counts := fun _ => 1.

(** One more replica of expert x. *)
Definition grown (c : counts) (x : nat) : counts := fun e => if (e =? x)%nat then c e + 1 else c e.

(** The sum over the experts below n. *)
Fixpoint sum (f : nat -> Z) (n : nat) : Z :=
  match n with
  | O => 0
  | S m => sum f m + f m
  end.

(** * Any greedy replication *)

Section Greedy.

Variable n : nat.
Variable load : nat -> Z.

(** Which numbers of replicas are allowed. *)
Variable fits : counts -> Prop.

Hypothesis loads_are_not_negative : forall e, (e < n)%nat -> 0 <= load e.
Hypothesis fits_or_not : forall c, fits c \/ ~ fits c.
Hypothesis fewer_fit_too : forall c d, (forall e, (e < n)%nat -> c e <= d e) -> fits d -> fits c.

(** The share of y is at most that of x. *)
Definition share_at_most (c : counts) (y x : nat) : Prop := load y * c x <= load x * c y.

(** One for each, and then one more to an expert of the largest share, any of equals, among those that may have one. *)
Inductive greedy : counts -> Prop :=
  | greedy_begins : greedy one_each
  | greedy_goes_on c x : greedy c -> (x < n)%nat -> fits (grown c x) ->
      (forall y, (y < n)%nat -> fits (grown c y) -> share_at_most c y x) -> greedy (grown c x).

Definition finished (c : counts) : Prop := greedy c /\ forall x, (x < n)%nat -> ~ fits (grown c x).

Lemma greedy_at_least_one c : greedy c -> forall e, 1 <= c e.
Proof.
  induction 1 as [| c x _ hc]; intros e; [reflexivity |]. unfold grown. specialize (hc e).
  destruct (e =? x)%nat; lia.
Qed.

Lemma grown_of_more c d x : (forall e, (e < n)%nat -> c e <= d e) ->
  forall e, (e < n)%nat -> grown c x e <= grown d x e.
Proof. intros more e he. unfold grown. specialize (more e he). destruct (e =? x)%nat; lia. Qed.

(** Every replica beyond the first went to an expert whose share was then at least that of e. *)
Definition yielded (e : nat) (c : counts) : Prop :=
  forall x, (x < n)%nat -> 2 <= c x -> load e * (c x - 1) <= load x * c e.

(** From some moment on e could have no further replica, and until then the others were served before it by right. *)
Definition blocked (e : nat) (c : counts) : Prop :=
  exists c', (forall x, (x < n)%nat -> c' x <= c x) /\ c' e = c e /\ ~ fits (grown c' e) /\ yielded e c'.

Lemma greedy_yields c : greedy c -> forall e, (e < n)%nat -> yielded e c \/ blocked e c.
Proof.
  induction 1 as [| c z run hc hz fit most]; intros e he.
  - left. intros x hx two. unfold one_each in two. lia.
  - pose proof (greedy_at_least_one c run) as some.
    destruct (hc e he) as [yields | (c' & less & same & full & yields)].
    + destruct (fits_or_not (grown c e)) as [open | full].
      * left. intros x hx two. pose proof (loads_are_not_negative x hx). pose proof (loads_are_not_negative e he).
        assert (c e <= grown c z e) by (unfold grown; destruct (e =? z)%nat; lia).
        unfold grown in two |- * at 1. destruct (Nat.eqb_spec x z) as [-> | other].
        -- specialize (most e he open). unfold share_at_most in most. nia.
        -- specialize (yields x hx two). nia.
      * right. exists c. assert (e <> z) by (intros ->; contradiction). split; [| split; [| now split]].
        -- intros x _. unfold grown. destruct (x =? z)%nat; lia.
        -- unfold grown. destruct (Nat.eqb_spec e z); [contradiction | reflexivity].
    + right. exists c'. assert (e <> z).
      { intros ->. apply full. apply (fewer_fit_too (grown c' z) (grown c z)); [| assumption].
        now apply grown_of_more. }
      split; [| split; [| now split]].
      * intros x hx. specialize (less x hx). unfold grown. destruct (x =? z)%nat; lia.
      * unfold grown. destruct (Nat.eqb_spec e z); [contradiction | assumption].
Qed.

Lemma first_or_none (p : nat -> Prop) m : (forall x, p x \/ ~ p x) ->
  (exists x, (x < m)%nat /\ p x) \/ (forall x, (x < m)%nat -> ~ p x).
Proof.
  intros decide. induction m as [| m [(x & hx & px) | none]].
  - right. intros x hx. lia.
  - left. exists x. split; [lia | assumption].
  - destruct (decide m) as [pm | not_pm]; [left; exists m; split; [lia | assumption] | right].
    intros x hx. destruct (Nat.eq_dec x m) as [-> | other]; [assumption | apply none; lia].
Qed.

(** Greedy replication, with any choice among equal shares and under any limits that fewer replicas meet too: however
    else replicas are given, the largest share is not smaller. *)
Theorem greedy_replication_is_optimal c d : finished c ->
  (forall e, (e < n)%nat -> 1 <= d e) -> fits d ->
  forall e, (e < n)%nat -> exists x, (x < n)%nat /\ load e * d x <= load x * c e.
Proof.
  intros (run & full) some fit e he.
  assert (stopped : blocked e c).
  { destruct (greedy_yields c run e he) as [yields |]; [| assumption]. exists c.
    split; [reflexivity |]. split; [reflexivity |]. split; [now apply full | assumption]. }
  destruct stopped as (c' & less & same & blocks & yields).
  destruct (first_or_none (fun x => load e * d x <= load x * c e) n) as [found | none]; [intros x; lia | exact found |].
  exfalso. apply blocks. apply (fewer_fit_too _ d); [| assumption]. intros x hx.
  pose proof (none x hx) as larger. pose proof (some x hx). pose proof (loads_are_not_negative x hx).
  pose proof (loads_are_not_negative e he). pose proof (greedy_at_least_one c run e).
  unfold grown. destruct (Nat.eqb_spec x e) as [-> | other].
  - rewrite same. nia.
  - destruct (Z.le_gt_cases (c' x) 1) as [single | several]; [lia |].
    specialize (yields x hx ltac:(lia)). rewrite same in yields. nia.
Qed.

End Greedy.

(** * Slots alone *)

Lemma sum_monotone f g n : (forall e, (e < n)%nat -> f e <= g e) -> sum f n <= sum g n.
Proof.
  induction n as [| n hn]; intros less; simpl; [lia |]. specialize (hn ltac:(intros; apply less; lia)).
  specialize (less n ltac:(lia)). lia.
Qed.

Lemma sum_grown c x n : (x < n)%nat -> sum (grown c x) n = sum c n + 1.
Proof.
  assert (same : forall m, (m <= x)%nat -> sum (grown c x) m = sum c m).
  { induction m as [| m hm]; intros less; simpl; [reflexivity |]. rewrite hm by lia. unfold grown.
    destruct (Nat.eqb_spec m x); lia. }
  induction n as [| n hn]; intros hx; simpl; [lia |].
  unfold grown at 2. destruct (Nat.eqb_spec n x) as [-> | other]; [rewrite same by lia; lia |].
  rewrite hn by lia. lia.
Qed.

(** P slots spent greedily, every expert on at least one: no other way to spend them makes the largest share smaller. *)
Theorem greedy_replication_of_slots_is_optimal n load slots c d :
  (forall e, (e < n)%nat -> 0 <= load e) ->
  greedy n load (fun c => sum c n <= slots) c -> sum c n = slots ->
  (forall e, (e < n)%nat -> 1 <= d e) -> sum d n <= slots ->
  forall e, (e < n)%nat -> exists x, (x < n)%nat /\ load e * d x <= load x * c e.
Proof.
  intros loads run all some fit. apply (greedy_replication_is_optimal n load (fun c => sum c n <= slots)).
  - assumption.
  - intros f. lia.
  - intros f g less. pose proof (sum_monotone f g n less). lia.
  - split; [assumption |]. intros x hx. rewrite sum_grown by assumption. lia.
  - assumption.
  - assumption.
Qed.

(** * The model's replication *)

Fixpoint insert (room : Z) (rooms : list Z) : list Z :=
  match rooms with
  | [] => [room]
  | first :: others => if first <=? room then room :: rooms else first :: insert room others
  end.

Definition descending (rooms : list Z) : list Z := fold_right insert [] rooms.

Definition total_room (rooms : list Z) : Z := fold_right Z.add 0 rooms.

(** The room outside the k ranks of the most room. *)
Definition room_outside (rooms : list Z) (k : nat) : Z := total_room (skipn k (descending rooms)).

(** How many replicas there are beyond each expert's k-th. *)
Definition beyond (n : nat) (c : counts) (k : nat) : Z := sum (fun e => Z.max (c e - Z.of_nat k) 0) n.

(** Gale and Ryser's condition: ranks of these rooms can hold so many replicas, no two of an expert on a rank. *)
Definition can_be_held_apart (n : nat) (rooms : list Z) (c : counts) : bool :=
  forallb (fun k => beyond n c k <=? room_outside rooms k) (seq 0 (S (length rooms))).

(** Whether x comes before y, the lower expert, when the next replica is given. *)
Definition comes_before (load : nat -> Z) (c : counts) (x y : nat) : bool :=
  let tie e := if 0 <? load e then 0 else c e in
  (load y * c x <? load x * c y) || (load y * c x =? load x * c y) && (tie x <? tie y).

(** Which of the candidates, in ascending order, is given the next replica. *)
Definition next_served (load : nat -> Z) (c : counts) (first : nat) (others : list nat) : nat :=
  fold_left (fun best e => if comes_before load c e best then e else best) others first.

Definition candidates (n : nat) (rooms : list Z) (c : counts) : list nat :=
  filter (fun e => can_be_held_apart n rooms (grown c e)) (seq 0 n).

Fixpoint replicate (fuel n : nat) (load : nat -> Z) (rooms : list Z) (c : counts) : counts :=
  match fuel with
  | O => c
  | S less =>
      match candidates n rooms c with
      | [] => c
      | first :: others => replicate less n load rooms (grown c (next_served load c first others))
      end
  end.

Definition replicas (n : nat) (load : nat -> Z) (rooms : list Z) : counts :=
  replicate (Z.to_nat (total_room rooms)) n load rooms one_each.

(** The list of the numbers of replicas, and none where there are fewer slots than experts. *)
Definition replica_counts (loads : list Z) (rooms : list Z) : option (list Z) :=
  let n := length loads in
  if can_be_held_apart n rooms one_each
  then Some (map (replicas n (fun e => nth e loads 0) rooms) (seq 0 n))
  else None.

Lemma held_apart_of_fewer n rooms c d : (forall e, (e < n)%nat -> c e <= d e) ->
  can_be_held_apart n rooms d = true -> can_be_held_apart n rooms c = true.
Proof.
  intros fewer. unfold can_be_held_apart. rewrite !forallb_forall. intros fit k hk. specialize (fit k hk).
  apply Z.leb_le in fit. apply Z.leb_le. unfold beyond in *.
  assert (sum (fun e => Z.max (c e - Z.of_nat k) 0) n <= sum (fun e => Z.max (d e - Z.of_nat k) 0) n); [| lia].
  apply sum_monotone. intros e he. specialize (fewer e he). lia.
Qed.

Lemma total_of_insert room rooms : total_room (insert room rooms) = room + total_room rooms.
Proof.
  induction rooms as [| first others hr]; [reflexivity |]. simpl. destruct (first <=? room); simpl; [reflexivity |].
  rewrite hr. simpl. lia.
Qed.

Lemma total_of_descending rooms : total_room (descending rooms) = total_room rooms.
Proof. induction rooms as [| room rooms hr]; [reflexivity |]. simpl. rewrite total_of_insert. simpl in hr. lia. Qed.

Lemma sum_extensional f g n : (forall e, (e < n)%nat -> f e = g e) -> sum f n = sum g n.
Proof.
  intros same. apply Z.le_antisymm; apply sum_monotone; intros e he; specialize (same e he); lia.
Qed.

Lemma held_apart_is_within_room n rooms c : (forall e, 1 <= c e) ->
  can_be_held_apart n rooms c = true -> sum c n <= total_room rooms.
Proof.
  intros some fit. unfold can_be_held_apart in fit. rewrite forallb_forall in fit.
  specialize (fit 0%nat ltac:(apply in_seq; lia)). apply Z.leb_le in fit. unfold beyond, room_outside in fit.
  simpl skipn in fit. rewrite total_of_descending in fit.
  rewrite (sum_extensional _ c) in fit; [assumption |]. intros e _. specialize (some e). lia.
Qed.

Lemma share_is_transitive load c x y z : (forall e, 1 <= c e) ->
  share_at_most load c x y -> share_at_most load c y z -> share_at_most load c x z.
Proof.
  unfold share_at_most. intros some first second.
  pose proof (some x). pose proof (some y). pose proof (some z).
  apply (Z.mul_le_mono_pos_l _ _ (c y)); [lia |].
  assert (load x * c y * c z <= load y * c x * c z) by (apply Z.mul_le_mono_nonneg_r; lia).
  assert (load y * c z * c x <= load z * c y * c x) by (apply Z.mul_le_mono_nonneg_r; lia). lia.
Qed.

Lemma next_served_is_largest load c first others : (forall e, 1 <= c e) ->
  In (next_served load c first others) (first :: others) /\
  forall y, In y (first :: others) -> share_at_most load c y (next_served load c first others).
Proof.
  intros some. revert first. induction others as [| e others ho]; intros first.
  - simpl. split; [auto |]. intros y [<- | []]. unfold share_at_most. lia.
  - unfold next_served. simpl. fold (next_served load c (if comes_before load c e first then e else first) others).
    destruct (ho (if comes_before load c e first then e else first)) as (among & most).
    set (best := next_served _ _ _ _) in *.
    assert (larger : share_at_most load c e (if comes_before load c e first then e else first) /\
      share_at_most load c first (if comes_before load c e first then e else first)).
    { unfold comes_before, share_at_most. cbv zeta.
      destruct (Z.ltb_spec (load first * c e) (load e * c first)); simpl; [lia |].
      destruct (Z.eqb_spec (load first * c e) (load e * c first)); simpl; [| lia].
      destruct (_ <? _); lia. }
    split.
    + destruct among as [same | later]; [| auto]. rewrite <- same. destruct (comes_before load c e first); auto.
    + destruct larger as (of_e & of_first). pose proof (most _ (or_introl eq_refl)) as chosen.
      intros y [<- | [<- | hy]]; [| | now apply most; right];
        (eapply share_is_transitive; [assumption | eassumption | assumption]).
Qed.

Lemma replicate_finishes fuel n load rooms c :
  greedy n load (fun c => can_be_held_apart n rooms c = true) c -> total_room rooms - sum c n <= Z.of_nat fuel ->
  finished n load (fun c => can_be_held_apart n rooms c = true) (replicate fuel n load rooms c).
Proof.
  revert c. induction fuel as [| fuel hf]; intros c run room.
  - simpl replicate. split; [assumption |]. intros x hx fit. apply held_apart_is_within_room in fit.
    + rewrite sum_grown in fit by assumption. lia.
    + intros e. pose proof (greedy_at_least_one _ _ _ _ run e). unfold grown. destruct (e =? x)%nat; lia.
  - pose proof (greedy_at_least_one _ _ _ _ run) as some.
    assert (member : forall x, In x (candidates n rooms c) <->
      (x < n)%nat /\ can_be_held_apart n rooms (grown c x) = true).
    { intros x. unfold candidates. rewrite filter_In, in_seq. split; intros (range & fit); split; (assumption || lia). }
    simpl. destruct (candidates n rooms c) as [| first others].
    + split; [assumption |]. intros x hx fit. apply (proj2 (member x)). now split.
    + destruct (next_served_is_largest load c first others some) as (among & most).
      set (best := next_served load c first others) in *. apply member in among. destruct among as (range & fit).
      apply hf.
      * apply greedy_goes_on; [assumption | assumption | assumption |]. intros y hy allowed. apply most, member.
        now split.
      * rewrite sum_grown by assumption. lia.
Qed.

(** No other numbers of replicas that can be held apart make the largest share smaller than the model's do. *)
Theorem replication_is_optimal n load rooms d :
  (forall e, (e < n)%nat -> 0 <= load e) ->
  (forall e, (e < n)%nat -> 1 <= d e) -> can_be_held_apart n rooms d = true ->
  forall e, (e < n)%nat -> exists x, (x < n)%nat /\ load e * d x <= load x * replicas n load rooms e.
Proof.
  intros loads some fit.
  apply (greedy_replication_is_optimal n load (fun c => can_be_held_apart n rooms c = true)); try assumption.
  - intros c. destruct (can_be_held_apart n rooms c); auto.
  - intros c e less. now apply held_apart_of_fewer.
  - apply replicate_finishes; [constructor |].
    assert (0 <= sum one_each n); [| lia].
    clear. induction n as [| n hn]; simpl; [lia |]. unfold one_each at 2. lia.
Qed.

(** * Layouts *)

(** A rank: its room, and the experts that it holds a replica of. *)
Definition rank := (Z * list nat)%type.

(** No rank holds two replicas of an expert, or more than it has room for. *)
Definition holds_apart (n : nat) (ranks : list rank) : Prop :=
  forall r, In r ranks -> NoDup (snd r) /\ Z.of_nat (length (snd r)) <= fst r /\ forall e, In e (snd r) -> (e < n)%nat.

(** How many replicas of an expert there are. *)
Definition replicas_held (ranks : list rank) : counts :=
  fun e => Z.of_nat (count_occ Nat.eq_dec (concat (map snd ranks)) e).

Fixpoint insert_rank (r : rank) (ranks : list rank) : list rank :=
  match ranks with
  | [] => [r]
  | first :: others => if fst first <=? fst r then r :: ranks else first :: insert_rank r others
  end.

Definition ranks_descending (ranks : list rank) : list rank := fold_right insert_rank [] ranks.

Lemma insert_rank_is_permutation r ranks : Permutation (r :: ranks) (insert_rank r ranks).
Proof.
  induction ranks as [| first others hr]; [reflexivity |]. simpl. destruct (fst first <=? fst r); [reflexivity |].
  rewrite perm_swap. now constructor.
Qed.

Lemma ranks_descending_is_permutation ranks : Permutation ranks (ranks_descending ranks).
Proof.
  induction ranks as [| r ranks hr]; [constructor |]. simpl. rewrite <- insert_rank_is_permutation. now constructor.
Qed.

Lemma rooms_of_descending ranks : map fst (ranks_descending ranks) = descending (map fst ranks).
Proof.
  assert (one : forall r others, map fst (insert_rank r others) = insert (fst r) (map fst others)).
  { intros r others. induction others as [| first others ho]; [reflexivity |]. simpl.
    destruct (fst first <=? fst r); simpl; [reflexivity | now rewrite ho]. }
  induction ranks as [| r ranks hr]; [reflexivity |]. simpl. now rewrite one, hr.
Qed.

Lemma replicas_of_permutation left right e : Permutation left right -> replicas_held left e = replicas_held right e.
Proof.
  unfold replicas_held. induction 1 as [| r left right _ same | r q others | left middle right _ first _ second].
  - reflexivity.
  - simpl. rewrite !count_occ_app. lia.
  - simpl. rewrite !count_occ_app. lia.
  - now rewrite first.
Qed.

Lemma replicas_of_both left right e : replicas_held (left ++ right) e = replicas_held left e + replicas_held right e.
Proof. unfold replicas_held. rewrite map_app, concat_app, count_occ_app, Nat2Z.inj_add. reflexivity. Qed.

Lemma one_on_each ranks n e : holds_apart n ranks -> replicas_held ranks e <= Z.of_nat (length ranks).
Proof.
  unfold replicas_held. induction ranks as [| r ranks hr]; intros apart; [simpl; lia |]. simpl.
  rewrite count_occ_app.
  destruct (apart r (or_introl eq_refl)) as (once & _ & _).
  pose proof (proj1 (NoDup_count_occ Nat.eq_dec (snd r)) once e).
  specialize (hr ltac:(intros q hq; apply apart; now right)). lia.
Qed.

Lemma sum_of_occurrences l n : (forall e, In e l -> (e < n)%nat) ->
  sum (fun e => Z.of_nat (count_occ Nat.eq_dec l e)) n = Z.of_nat (length l).
Proof.
  induction l as [| x l hl]; intros range.
  - clear range. induction n as [| n hn]; [reflexivity |]. simpl. simpl in hn. lia.
  - specialize (hl ltac:(intros e he; apply range; now right)). specialize (range x (or_introl eq_refl)).
    rewrite (sum_extensional _ (grown (fun e => Z.of_nat (count_occ Nat.eq_dec l e)) x)).
    + rewrite sum_grown by assumption. rewrite hl. simpl length. lia.
    + intros e _. unfold grown. simpl. destruct (Nat.eq_dec x e) as [-> | other].
      * rewrite Nat.eqb_refl. lia.
      * destruct (Nat.eqb_spec e x); [congruence | reflexivity].
Qed.

Lemma replicas_within_room ranks n : holds_apart n ranks -> sum (replicas_held ranks) n <= total_room (map fst ranks).
Proof.
  unfold replicas_held. intros apart. rewrite sum_of_occurrences.
  - induction ranks as [| r ranks hr]; [simpl; lia |]. simpl. rewrite app_length.
    destruct (apart r (or_introl eq_refl)) as (_ & room & _).
    specialize (hr ltac:(intros q hq; apply apart; now right)). simpl in hr. lia.
  - intros e he. apply in_concat in he. destruct he as (held & hheld & he). apply in_map_iff in hheld.
    destruct hheld as (r & <- & hr). now apply (apart r hr).
Qed.

(** Replicas that ranks hold apart meet Gale and Ryser's condition. *)
Theorem layouts_meet_the_condition n ranks : holds_apart n ranks ->
  can_be_held_apart n (map fst ranks) (replicas_held ranks) = true.
Proof.
  intros apart. unfold can_be_held_apart. apply forallb_forall. intros k _. apply Z.leb_le.
  unfold room_outside, beyond. rewrite <- rooms_of_descending, skipn_map. set (sorted := ranks_descending ranks).
  assert (same : Permutation ranks sorted) by apply ranks_descending_is_permutation.
  assert (sorted_apart : holds_apart n sorted).
  { intros r hr. apply apart. now apply (Permutation_in r (Permutation_sym same)). }
  rewrite <- (firstn_skipn k sorted) in sorted_apart.
  assert (first : holds_apart n (firstn k sorted)) by (intros r hr; apply sorted_apart, in_app_iff; now left).
  assert (others : holds_apart n (skipn k sorted)) by (intros r hr; apply sorted_apart, in_app_iff; now right).
  apply Z.le_trans with (2 := replicas_within_room _ n others). apply sum_monotone. intros e _.
  rewrite (replicas_of_permutation _ _ e same), <- (firstn_skipn k sorted) at 1. rewrite replicas_of_both.
  pose proof (one_on_each _ n e first). rewrite firstn_length in *.
  assert (0 <= replicas_held (skipn k sorted) e) by (unfold replicas_held; lia). lia.
Qed.

(** However ranks hold replicas apart, every expert somewhere: the largest share is not smaller than the model's. *)
Theorem no_layout_has_a_smaller_largest_share n load ranks :
  (forall e, (e < n)%nat -> 0 <= load e) -> holds_apart n ranks ->
  (forall e, (e < n)%nat -> 1 <= replicas_held ranks e) ->
  forall e, (e < n)%nat -> exists x, (x < n)%nat /\
    load e * replicas_held ranks x <= load x * replicas n load (map fst ranks) e.
Proof.
  intros. apply replication_is_optimal; [assumption | assumption | | assumption]. now apply layouts_meet_the_condition.
Qed.
