(** Batches of transfers: König's theorem on edge colourings of bipartite graphs. SPEC.md, "Batches".

    A transfer has a sender and a receiver, and the same two may have several. In a batch no rank sends twice and none
    receives twice. The batches are made as in expert_placement_spec/migration/batches.py, transfer by transfer; instead
    of walking along the path on which two batches are exchanged, a set of ranks is grown until nothing leads out of
    it, which are the ranks of that path. *)

From Coq Require Import Arith List Bool Lia FinFun.
Import ListNotations.

Record transfer := Transfer { sender : nat; receiver : nat }.

(** A transfer and its batch. *)
Definition placed := (transfer * nat)%type.

Definition sends (r : nat) (t : transfer) : bool := sender t =? r.
Definition receives (r : nat) (t : transfer) : bool := receiver t =? r.

(** How many transfers a rank sends, and how many it receives. *)
Definition sent (r : nat) (ts : list transfer) : nat := length (filter (sends r) ts).
Definition received (r : nat) (ts : list transfer) : nat := length (filter (receives r) ts).

(** The most transfers that one rank sends, or that one receives. *)
Definition fewest_batches (ts : list transfer) : nat :=
  list_max (map (fun t => max (sent (sender t) ts) (received (receiver t) ts)) ts).

(** In no batch does a rank send twice, and in none does it receive twice. *)
Definition keeps_apart (ps : list placed) : Prop :=
  NoDup (map (fun p => (sender (fst p), snd p)) ps) /\ NoDup (map (fun p => (receiver (fst p), snd p)) ps).

(** Every batch is one of the first so many. *)
Definition within (number : nat) (ps : list placed) : Prop := forall p, In p ps -> snd p < number.

(** * The algorithm *)

(** The first batch of so many that is not among those in use. *)
Definition first_free (number : nat) (used : list nat) : nat :=
  match find (fun b => negb (existsb (Nat.eqb b) used)) (seq 0 number) with Some b => b | None => 0 end.

Definition batches_of (end_of : transfer -> nat) (r : nat) (ps : list placed) : list nat :=
  map snd (filter (fun p => end_of (fst p) =? r) ps).

(** The ranks that are reached: as senders, and as receivers. *)
Definition reached := (list nat * list nat)%type.

Definition member (r : nat) (rs : list nat) : bool := existsb (Nat.eqb r) rs.

(** Whether a transfer leads out of the reached ranks: one of batch a from a receiver, one of batch b from a sender. *)
Definition leads_out (a b : nat) (s : reached) (p : placed) : bool :=
  let from := member (sender (fst p)) (fst s) in
  let to := member (receiver (fst p)) (snd s) in
  (snd p =? a) && to && negb from || (snd p =? b) && from && negb to.

(** Adds both ends of a transfer that leads out, again and again. *)
Fixpoint grow (fuel a b : nat) (ps : list placed) (s : reached) : reached :=
  match fuel with
  | O => s
  | S less =>
      match find (leads_out a b s) ps with
      | Some (t, _) => grow less a b ps (sender t :: fst s, receiver t :: snd s)
      | None => s
      end
  end.

Definition exchanged (a b x : nat) : nat := if x =? a then b else if x =? b then a else x.

(** The batches a and b exchanged for the transfers of the reached senders. *)
Definition exchange (a b : nat) (s : reached) (p : placed) : placed :=
  (fst p, if member (sender (fst p)) (fst s) then exchanged a b (snd p) else snd p).

(** Places one more transfer, after it has made a batch free at both ends. *)
Definition place (number : nat) (ps : list placed) (t : transfer) : list placed :=
  let a := first_free number (batches_of sender (sender t) ps) in
  let b := first_free number (batches_of receiver (receiver t) ps) in
  let s := grow (length ps) a b ps ([], [receiver t]) in
  map (exchange a b s) ps ++ [(t, a)].

Definition place_all (number : nat) (ts : list transfer) : list placed := fold_left (place number) ts [].

(** The batch of each transfer. *)
Definition colour (ts : list transfer) : list nat := map snd (place_all (fewest_batches ts) ts).

(** * Free batches *)

Lemma member_spec r rs : member r rs = true <-> In r rs.
Proof.
  unfold member. rewrite existsb_exists. split.
  - intros (x & hx & same). apply Nat.eqb_eq in same. now subst.
  - intros hr. exists r. split; [assumption | apply Nat.eqb_refl].
Qed.

Lemma first_free_is_free number used : length used < number ->
  first_free number used < number /\ ~ In (first_free number used) used.
Proof.
  intros few. unfold first_free. destruct (find _ (seq 0 number)) as [b |] eqn:found.
  - apply find_some in found. destruct found as (range & free). apply in_seq in range. split; [lia |].
    intros taken. apply (member_spec b used) in taken. unfold member in taken. rewrite taken in free. discriminate.
  - exfalso. assert (all : incl (seq 0 number) used).
    { intros b hb. pose proof (find_none _ _ found b hb) as none. apply negb_false_iff in none.
      now apply (member_spec b used). }
    apply (NoDup_incl_length (seq_NoDup number 0)) in all. rewrite seq_length in all. lia.
Qed.

(** * The set that is exchanged *)

(** What holds of the reached ranks on the way: whoever was reached was reached by a transfer of the two batches. *)
Definition grown_from (a b v : nat) (ps : list placed) (s : reached) : Prop :=
  In v (snd s) /\
  (forall y, In y (snd s) -> y = v \/ exists x, In x (fst s) /\ In (Transfer x y, b) ps) /\
  (forall x, In x (fst s) -> exists y, In y (snd s) /\ In (Transfer x y, a) ps).

(** Which transfers have an end that is not reached, and how many. *)
Definition has_end_outside (s : reached) (p : placed) : bool :=
  negb (member (sender (fst p)) (fst s) && member (receiver (fst p)) (snd s)).

Definition outside (ps : list placed) (s : reached) : nat := length (filter (has_end_outside s) ps).

Lemma filter_weaker {A : Type} (f g : A -> bool) l : (forall x, f x = true -> g x = true) ->
  length (filter f l) <= length (filter g l).
Proof.
  intros weaker. induction l as [| x l hl]; [reflexivity |]. simpl.
  destruct (f x) eqn:fx; [rewrite (weaker x fx); simpl; lia |]. destruct (g x); simpl; lia.
Qed.

Lemma filter_strictly_weaker {A : Type} (f g : A -> bool) l y : (forall x, f x = true -> g x = true) ->
  In y l -> f y = false -> g y = true -> length (filter f l) < length (filter g l).
Proof.
  intros weaker. induction l as [| x l hl]; [intros [] |]. intros [-> | hy] fy gy; simpl.
  - rewrite fy, gy. simpl. pose proof (filter_weaker f g l weaker). lia.
  - specialize (hl hy fy gy). destruct (f x) eqn:fx; [rewrite (weaker x fx); simpl; lia |].
    destruct (g x); simpl; lia.
Qed.

Lemma leads_out_spec a b s p : leads_out a b s p = true <->
  snd p = a /\ In (receiver (fst p)) (snd s) /\ ~ In (sender (fst p)) (fst s) \/
  snd p = b /\ In (sender (fst p)) (fst s) /\ ~ In (receiver (fst p)) (snd s).
Proof.
  unfold leads_out. rewrite orb_true_iff, !andb_true_iff, !negb_true_iff, !Nat.eqb_eq.
  rewrite <- !not_true_iff_false, !member_spec. tauto.
Qed.

Lemma grow_keeps_origin fuel a b v ps s : grown_from a b v ps s -> grown_from a b v ps (grow fuel a b ps s).
Proof.
  revert s. induction fuel as [| fuel hf]; intros s origin; [assumption |]. simpl.
  destruct (find (leads_out a b s) ps) as [[t batch] |] eqn:found; [| assumption]. apply hf.
  apply find_some in found. destruct found as (hp & out). apply leads_out_spec in out. simpl in out.
  destruct t as [x y]. simpl in *. destruct origin as (hv & tos & froms). repeat split; simpl; [auto | |].
  - intros z [<- | hz].
    + destruct out as [(-> & to & _) | (-> & from & _)].
      * destruct (tos y to) as [-> | (w & hw & edge)]; eauto.
      * eauto.
    + destruct (tos z hz) as [-> | (w & hw & edge)]; eauto.
  - intros z [<- | hz].
    + destruct out as [(-> & to & _) | (-> & from & _)]; [eauto |].
      destruct (froms x from) as (w & hw & edge). eauto.
    + destruct (froms z hz) as (w & hw & edge). eauto.
Qed.

Lemma grow_closes fuel a b ps s : outside ps s <= fuel ->
  forall p, In p ps -> leads_out a b (grow fuel a b ps s) p = false.
Proof.
  revert s. induction fuel as [| fuel hf]; intros s few p hp; simpl.
  - destruct (leads_out a b s p) eqn:out; [| reflexivity]. exfalso. apply leads_out_spec in out.
    unfold outside in few. assert (inside : In p (filter (has_end_outside s) ps)).
    { apply filter_In. split; [assumption |]. apply negb_true_iff, andb_false_iff.
      rewrite <- !not_true_iff_false, !member_spec. tauto. }
    destruct (filter (has_end_outside s) ps); [destruct inside | simpl in few; lia].
  - destruct (find (leads_out a b s) ps) as [[t batch] |] eqn:found.
    + apply hf; [| assumption]. apply find_some in found. destruct found as (ht & out).
      assert (outside ps (sender t :: fst s, receiver t :: snd s) < outside ps s); [| lia].
      apply filter_strictly_weaker with (y := (t, batch)); unfold has_end_outside; simpl; [| assumption | |].
      * intros q. rewrite !negb_true_iff, !andb_false_iff, !orb_false_iff. tauto.
      * unfold member. simpl. now rewrite !Nat.eqb_refl.
      * apply leads_out_spec in out. simpl in out. apply negb_true_iff, andb_false_iff.
        rewrite <- !not_true_iff_false, !member_spec. tauto.
    + now apply (find_none _ _ found).
Qed.

Lemma outside_at_most ps s : outside ps s <= length ps.
Proof.
  unfold outside. induction ps as [| p ps hps]; simpl; [lia |]. destruct (has_end_outside s p); simpl; lia.
Qed.

(** A key and a batch tell which transfer it is, where batches keep transfers apart. *)
Lemma key_is_unique (key : placed -> nat) ps p q :
  NoDup (map (fun p => (key p, snd p)) ps) -> In p ps -> In q ps -> key p = key q -> snd p = snd q -> p = q.
Proof.
  induction ps as [| x ps hps]; [intros _ [] |]. simpl. intros once hp hq same batch.
  inversion once as [| ? ? new rest]; subst.
  destruct hp as [-> | hp]; destruct hq as [-> | hq]; [reflexivity | | | now apply hps].
  - exfalso. apply new. rewrite in_map_iff. exists q. split; [congruence | assumption].
  - exfalso. apply new. rewrite in_map_iff. exists p. split; [congruence | assumption].
Qed.

(** A transfer of the two batches has both ends among the reached ranks or none, once nothing leads out of them. *)
Lemma both_ends_or_none a b v ps s p : keeps_apart ps -> grown_from a b v ps s ->
  (forall q, In q ps -> leads_out a b s q = false) ->
  ~ In b (batches_of receiver v ps) ->
  In p ps -> snd p = a \/ snd p = b ->
  member (sender (fst p)) (fst s) = member (receiver (fst p)) (snd s).
Proof.
  intros (senders & receivers) (hv & tos & froms) closed free hp batch.
  specialize (closed p hp). rewrite <- not_true_iff_false, leads_out_spec in closed.
  apply eq_true_iff_eq. rewrite !member_spec. destruct p as [[x y] c]. simpl in *. split; intros reach.
  - destruct (in_dec Nat.eq_dec y (snd s)) as [| out]; [assumption |]. exfalso.
    destruct batch as [-> | ->]; [| tauto]. destruct (froms x reach) as (z & hz & edge).
    pose proof (key_is_unique (fun p => sender (fst p)) ps _ _ senders hp edge eq_refl eq_refl) as same.
    injection same as ->. contradiction.
  - destruct (in_dec Nat.eq_dec x (fst s)) as [| out]; [assumption |]. exfalso.
    destruct batch as [-> | ->]; [tauto |]. destruct (tos y reach) as [-> | (z & hz & edge)].
    + apply free. unfold batches_of. rewrite in_map_iff. exists (Transfer x v, b). split; [reflexivity |].
      apply filter_In. split; [assumption | apply Nat.eqb_refl].
    + pose proof (key_is_unique (fun p => receiver (fst p)) ps _ _ receivers hp edge eq_refl eq_refl) as same.
      injection same as ->. contradiction.
Qed.

Lemma exchanged_twice a b x : exchanged a b (exchanged a b x) = x.
Proof.
  unfold exchanged. destruct (Nat.eqb_spec x a); subst.
  - destruct (Nat.eqb_spec b a); subst; [reflexivity |]. now rewrite Nat.eqb_refl.
  - destruct (Nat.eqb_spec x b); subst; [now rewrite Nat.eqb_refl |].
    destruct (Nat.eqb_spec x a); [contradiction |]. destruct (Nat.eqb_spec x b); [contradiction | reflexivity].
Qed.

Lemma exchanged_other a b x : x <> a -> x <> b -> exchanged a b x = x.
Proof. intros na nb. unfold exchanged. destruct (Nat.eqb_spec x a), (Nat.eqb_spec x b); congruence. Qed.

(** Exchanging the batches a and b at some ranks, at all their transfers, keeps transfers apart. *)
Lemma exchange_keeps_once a b (rank : placed -> nat) (at_rank : nat -> bool) ps :
  NoDup (map (fun p => (rank p, snd p)) ps) ->
  NoDup (map (fun p => (rank p, if at_rank (rank p) then exchanged a b (snd p) else snd p)) ps).
Proof.
  intros once.
  set (change := fun k : nat * nat => (fst k, if at_rank (fst k) then exchanged a b (snd k) else snd k)).
  replace (map _ ps) with (map change (map (fun p => (rank p, snd p)) ps)) by apply map_map.
  apply Injective_map_NoDup; [| assumption].
  intros (r, x) (q, y) same. unfold change in same. simpl in same. injection same as -> batch. f_equal.
  destruct (at_rank q); [| assumption].
  rewrite <- (exchanged_twice a b x), batch. apply exchanged_twice.
Qed.

(** * One transfer more *)

Lemma batches_of_length end_of r ps :
  length (batches_of end_of r ps) = length (filter (fun t => end_of t =? r) (map fst ps)).
Proof.
  unfold batches_of. rewrite map_length. induction ps as [| p ps hps]; [reflexivity |]. simpl.
  destruct (end_of (fst p) =? r); simpl; now rewrite hps.
Qed.

Lemma nodup_snoc {A : Type} (l : list A) x : NoDup l -> ~ In x l -> NoDup (l ++ [x]).
Proof.
  intros once new. apply NoDup_rev in once. rewrite <- (rev_involutive (l ++ [x])). apply NoDup_rev.
  rewrite rev_app_distr. simpl. constructor; [now rewrite <- in_rev | assumption].
Qed.

Lemma place_keeps number ps t :
  keeps_apart ps -> within number ps ->
  sent (sender t) (map fst ps) < number -> received (receiver t) (map fst ps) < number ->
  keeps_apart (place number ps t) /\ within number (place number ps t) /\
  map fst (place number ps t) = map fst ps ++ [t].
Proof.
  intros apart range few_sent few_received. unfold place.
  destruct (first_free_is_free number (batches_of sender (sender t) ps)) as (a_range & a_free).
  { rewrite batches_of_length. exact few_sent. }
  destruct (first_free_is_free number (batches_of receiver (receiver t) ps)) as (b_range & b_free).
  { rewrite batches_of_length. exact few_received. }
  set (a := first_free number (batches_of sender (sender t) ps)) in *.
  set (b := first_free number (batches_of receiver (receiver t) ps)) in *.
  set (s := grow (length ps) a b ps ([], [receiver t])).
  assert (origin : grown_from a b (receiver t) ps s).
  { apply grow_keeps_origin. split; [simpl; auto |]. split; simpl; [intros y [<- | []]; auto | intros x []]. }
  assert (closed : forall p, In p ps -> leads_out a b s p = false) by (apply grow_closes, outside_at_most).
  assert (sender_is_not_reached : member (sender t) (fst s) = false).
  { apply not_true_iff_false. rewrite member_spec. intros reach. destruct origin as (_ & _ & froms).
    destruct (froms (sender t) reach) as (y & _ & edge). apply a_free. unfold batches_of. rewrite in_map_iff.
    exists (Transfer (sender t) y, a). split; [reflexivity |]. apply filter_In.
    split; [assumption | apply Nat.eqb_refl]. }
  split; [split |].
  - rewrite map_app, map_map. apply nodup_snoc.
    + apply (exchange_keeps_once a b (fun p => sender (fst p)) (fun r => member r (fst s))). apply apart.
    + simpl. rewrite in_map_iff. intros (p & same & hp). injection same as same_sender same_batch.
      rewrite same_sender, sender_is_not_reached in same_batch. apply a_free. unfold batches_of.
      rewrite in_map_iff. exists p. split; [assumption |]. apply filter_In. split; [assumption |].
      now apply Nat.eqb_eq.
  - rewrite map_app, map_map.
    rewrite (map_ext_in _ (fun p => (receiver (fst p),
      if member (receiver (fst p)) (snd s) then exchanged a b (snd p) else snd p))).
    + apply nodup_snoc.
      * apply (exchange_keeps_once a b (fun p => receiver (fst p)) (fun r => member r (snd s))). apply apart.
      * simpl. rewrite in_map_iff. intros (p & same & hp). injection same as same_receiver same_batch.
        destruct origin as (reach & _). apply member_spec in reach. rewrite same_receiver, reach in same_batch.
        apply b_free. unfold batches_of. rewrite in_map_iff. exists p. split.
        -- rewrite <- (exchanged_twice a b (snd p)), same_batch. unfold exchanged. now rewrite Nat.eqb_refl.
        -- apply filter_In. split; [assumption | now apply Nat.eqb_eq].
    + intros p hp. simpl. f_equal.
      destruct (Nat.eq_dec (snd p) a) as [is_a | not_a]; [| destruct (Nat.eq_dec (snd p) b) as [is_b | not_b]].
      * now rewrite (both_ends_or_none a b (receiver t) ps s p) by auto.
      * now rewrite (both_ends_or_none a b (receiver t) ps s p) by auto.
      * rewrite exchanged_other by assumption. destruct (member (sender (fst p)) (fst s));
          now destruct (member (receiver (fst p)) (snd s)).
  - split.
    + intros p hp. apply in_app_iff in hp. destruct hp as [hp | [<- | []]]; [| assumption].
      apply in_map_iff in hp. destruct hp as (q & <- & hq). specialize (range q hq). simpl.
      unfold exchanged. destruct (member (sender (fst q)) (fst s)), (snd q =? a), (snd q =? b); lia.
    + rewrite map_app, map_map. reflexivity.
Qed.

Lemma filter_of_prefix {A : Type} (f : A -> bool) l k : length (filter f l) <= length (filter f (l ++ k)).
Proof. rewrite filter_app, app_length. lia. Qed.

Lemma place_all_keeps number ts ps :
  keeps_apart ps -> within number ps ->
  (forall r, sent r (map fst ps ++ ts) <= number) -> (forall r, received r (map fst ps ++ ts) <= number) ->
  keeps_apart (fold_left (place number) ts ps) /\ within number (fold_left (place number) ts ps) /\
  map fst (fold_left (place number) ts ps) = map fst ps ++ ts.
Proof.
  revert ps. induction ts as [| t ts hts]; intros ps apart range few_sent few_received; simpl.
  - rewrite app_nil_r. auto.
  - assert (now_sent : sent (sender t) (map fst ps) < number).
    { specialize (few_sent (sender t)). unfold sent in *. rewrite filter_app, app_length in few_sent.
      simpl in few_sent. unfold sends in few_sent at 2. rewrite Nat.eqb_refl in few_sent. simpl in few_sent. lia. }
    assert (now_received : received (receiver t) (map fst ps) < number).
    { specialize (few_received (receiver t)). unfold received in *.
      rewrite filter_app, app_length in few_received. simpl in few_received.
      unfold receives in few_received at 2. rewrite Nat.eqb_refl in few_received. simpl in few_received. lia. }
    destruct (place_keeps number ps t apart range now_sent now_received) as (apart' & range' & same).
    destruct (hts (place number ps t) apart' range') as (apart_all & range_all & same_all).
    + intros r. rewrite same, <- app_assoc. apply few_sent.
    + intros r. rewrite same, <- app_assoc. apply few_received.
    + split; [assumption |]. split; [assumption |]. now rewrite same_all, same, <- app_assoc.
Qed.

(** * Laws *)

Lemma combine_of_maps {A B : Type} (l : list (A * B)) : combine (map fst l) (map snd l) = l.
Proof. induction l as [| (x, y) l hl]; [reflexivity |]. simpl. now rewrite hl. Qed.

Lemma place_all_spec number ts :
  (forall r, sent r ts <= number) -> (forall r, received r ts <= number) ->
  keeps_apart (place_all number ts) /\ within number (place_all number ts) /\ map fst (place_all number ts) = ts.
Proof.
  intros few_sent few_received. apply (place_all_keeps number ts []); try assumption.
  - split; constructor.
  - intros p [].
Qed.

Lemma fewest_batches_bounds ts r : sent r ts <= fewest_batches ts /\ received r ts <= fewest_batches ts.
Proof.
  unfold fewest_batches. pose proof (proj1 (list_max_le _ _) (Nat.le_refl (list_max (map (fun t =>
    max (sent (sender t) ts) (received (receiver t) ts)) ts)))) as most.
  rewrite Forall_forall in most. set (number := list_max _) in *. split.
  - destruct (filter (sends r) ts) as [| t rest] eqn:some; [unfold sent; rewrite some; simpl; lia |].
    assert (ht : In t (filter (sends r) ts)) by (rewrite some; now left). apply filter_In in ht.
    destruct ht as (ht & is_sender). apply Nat.eqb_eq in is_sender.
    specialize (most _ (in_map (fun t => max (sent (sender t) ts) (received (receiver t) ts)) ts t ht)). simpl in most.
    rewrite is_sender in most. lia.
  - destruct (filter (receives r) ts) as [| t rest] eqn:some; [unfold received; rewrite some; simpl; lia |].
    assert (ht : In t (filter (receives r) ts)) by (rewrite some; now left). apply filter_In in ht.
    destruct ht as (ht & is_receiver). apply Nat.eqb_eq in is_receiver.
    specialize (most _ (in_map (fun t => max (sent (sender t) ts) (received (receiver t) ts)) ts t ht)). simpl in most.
    rewrite is_receiver in most. lia.
Qed.

(** A rank that sends, and receives, at most D transfers each: D batches are enough to keep transfers apart. *)
Theorem koenig ts number :
  (forall r, sent r ts <= number /\ received r ts <= number) ->
  exists batches, length batches = length ts /\
    keeps_apart (combine ts batches) /\ within number (combine ts batches).
Proof.
  intros few. destruct (place_all_spec number ts) as (apart & range & same); [apply few .. |].
  exists (map snd (place_all number ts)). set (ps := place_all number ts) in *. clearbody ps. subst ts.
  rewrite combine_of_maps, !map_length. auto.
Qed.

Lemma batches_once end_of r ps :
  NoDup (map (fun p => (end_of (fst p), snd p)) ps) -> NoDup (batches_of end_of r ps).
Proof.
  intros once. unfold batches_of. induction ps as [| p ps hps]; [constructor |]. simpl in *.
  inversion once as [| ? ? new old]; subst. destruct (Nat.eqb_spec (end_of (fst p)) r) as [same | other].
  - simpl. constructor; [| now apply hps]. rewrite in_map_iff. intros (q & batch & hq). apply new.
    apply filter_In in hq. destruct hq as (hq & at_rank). apply Nat.eqb_eq in at_rank.
    rewrite in_map_iff. exists q. split; [congruence | assumption].
  - now apply hps.
Qed.

Lemma batches_within end_of r number ps b : within number ps -> In b (batches_of end_of r ps) -> b < number.
Proof.
  unfold batches_of. rewrite in_map_iff. intros range (p & <- & hp). apply filter_In in hp. now apply range.
Qed.

Lemma keys_at_most number end_of r ps :
  NoDup (map (fun p => (end_of (fst p), snd p)) ps) -> within number ps ->
  length (filter (fun t => end_of t =? r) (map fst ps)) <= number.
Proof.
  intros once range. rewrite <- batches_of_length. rewrite <- (seq_length number 0).
  apply NoDup_incl_length; [now apply batches_once |].
  intros b hb. apply in_seq. pose proof (batches_within end_of r number ps b range hb). lia.
Qed.

Lemma fst_of_combine {A B : Type} (l : list A) (k : list B) : length k = length l -> map fst (combine l k) = l.
Proof.
  revert k. induction l as [| x l hl]; intros [| y k]; simpl; intros same; try discriminate; [reflexivity |].
  now rewrite hl by lia.
Qed.

(** Where batches keep transfers apart, no rank sends or receives more transfers than there are batches. *)
Theorem no_fewer_batches ts batches number : length batches = length ts ->
  keeps_apart (combine ts batches) -> within number (combine ts batches) ->
  forall r, sent r ts <= number /\ received r ts <= number.
Proof.
  intros same (senders & receivers) range r. rewrite <- (fst_of_combine ts batches same).
  split; [now apply (keys_at_most number sender) | now apply (keys_at_most number receiver)].
Qed.

(** In a batch of the model's a rank sends at most once, and receives at most once. *)
Theorem no_rank_sends_or_receives_twice ts :
  length (colour ts) = length ts /\ keeps_apart (combine ts (colour ts)) /\
  within (fewest_batches ts) (combine ts (colour ts)).
Proof.
  destruct (place_all_spec (fewest_batches ts) ts) as (apart & range & same); [apply fewest_batches_bounds .. |].
  unfold colour. set (ps := place_all (fewest_batches ts) ts) in *. clearbody ps. subst ts.
  rewrite combine_of_maps, !map_length. auto.
Qed.

(** The model's batches are as few as can be: no batches that keep transfers apart are fewer. *)
Theorem batches_are_as_few_as_can_be ts batches number : length batches = length ts ->
  keeps_apart (combine ts batches) -> within number (combine ts batches) -> fewest_batches ts <= number.
Proof.
  intros same apart range. apply list_max_le, Forall_forall. intros n hn. apply in_map_iff in hn.
  destruct hn as (t & <- & _).
  pose proof (no_fewer_batches ts batches number same apart range (sender t)).
  pose proof (no_fewer_batches ts batches number same apart range (receiver t)). lia.
Qed.

(** * Limits *)

(** How many transfers of a batch have a node at one of their ends. *)
Definition at_node (end_of : transfer -> nat) (b r : nat) (ps : list placed) : nat :=
  length (filter (fun p => (end_of (fst p) =? r) && (snd p =? b)) ps).

(** In no batch does a node send more than so many times, and in none does it receive more often. *)
Definition keeps_limit (limit : nat) (ps : list placed) : Prop :=
  forall b r, at_node sender b r ps <= limit /\ at_node receiver b r ps <= limit.

(** The batches of which so many make one. *)
Definition joined (limit : nat) (batches : list nat) : list nat := map (fun b => b / limit) batches.

Definition rounded_up (n limit : nat) : nat := (n + limit - 1) / limit.

Lemma at_node_of_batches end_of b r ps :
  at_node end_of b r ps = length (filter (fun batch => batch =? b) (batches_of end_of r ps)).
Proof.
  unfold at_node, batches_of. induction ps as [| p ps hps]; [reflexivity |]. simpl.
  destruct (end_of (fst p) =? r); simpl; [destruct (snd p =? b); simpl |]; now rewrite hps.
Qed.

Lemma batches_of_joined end_of limit r ts batches :
  batches_of end_of r (combine ts (joined limit batches)) = joined limit (batches_of end_of r (combine ts batches)).
Proof.
  unfold batches_of, joined. revert batches. induction ts as [| t ts hts]; intros [| b batches]; try reflexivity.
  simpl. destruct (end_of t =? r); simpl; now rewrite hts.
Qed.

Lemma joined_at_most limit b batches : 1 <= limit -> NoDup batches ->
  length (filter (fun batch => batch =? b) (joined limit batches)) <= limit.
Proof.
  intros some once.
  assert (same : length (filter (fun batch => batch =? b) (joined limit batches)) =
    length (filter (fun batch => batch / limit =? b) batches)).
  { unfold joined. clear once. induction batches as [| x batches hb]; [reflexivity |]. simpl.
    destruct (x / limit =? b); simpl; now rewrite hb. }
  rewrite same. apply Nat.le_trans with (length (seq (b * limit) limit)); [| now rewrite seq_length].
  apply NoDup_incl_length; [now apply NoDup_filter |].
  intros x hx. apply filter_In in hx. destruct hx as (_ & part). apply Nat.eqb_eq in part.
  pose proof (Nat.div_mod x limit ltac:(lia)). pose proof (Nat.mod_upper_bound x limit ltac:(lia)).
  apply in_seq. rewrite <- part. set (q := x / limit) in *. set (m := x mod limit) in *. lia.
Qed.

Lemma limit_times_number limit number batches : (forall b, In b batches -> b < number) ->
  (forall b, length (filter (fun batch => batch =? b) batches) <= limit) -> length batches <= number * limit.
Proof.
  revert batches. induction number as [| number hn]; intros batches range few.
  - destruct batches as [| b batches]; [simpl; lia |]. specialize (range b (or_introl eq_refl)). lia.
  - assert (parts : length batches = length (filter (fun batch => batch =? number) batches) +
      length (filter (fun batch => negb (batch =? number)) batches)).
    { clear. induction batches as [| b batches hb]; [reflexivity |]. simpl. destruct (b =? number); simpl; lia. }
    specialize (few number) as last. rewrite parts.
    assert (length (filter (fun batch => negb (batch =? number)) batches) <= number * limit); [| simpl; lia].
    apply hn.
    + intros b hb. apply filter_In in hb. destruct hb as (hb & other). specialize (range b hb).
      apply negb_true_iff, Nat.eqb_neq in other. lia.
    + intros b. apply Nat.le_trans with (2 := few b). clear.
      induction batches as [| x batches hb]; [reflexivity |]. simpl.
      destruct (x =? number); simpl; destruct (x =? b); simpl; lia.
Qed.

(** Under a limit of k transfers that leave or enter a node in a batch, joining k of the model's batches keeps the
    limit, and makes d / k of them, rounded up, where d leave or enter the busiest node; no fewer keep it. *)
Theorem batches_are_split_as_little_as_can_be ts limit : 1 <= limit ->
  let batches := joined limit (colour ts) in
  let number := rounded_up (fewest_batches ts) limit in
  length batches = length ts /\ keeps_limit limit (combine ts batches) /\ within number (combine ts batches) /\
  forall others fewer, length others = length ts -> keeps_limit limit (combine ts others) ->
    within fewer (combine ts others) -> number <= fewer.
Proof.
  intros some batches number. destruct (no_rank_sends_or_receives_twice ts) as (same & (senders & receivers) & range).
  split; [unfold batches, joined; now rewrite map_length |]. split; [| split].
  - intros b r. rewrite !at_node_of_batches. unfold batches. rewrite !batches_of_joined.
    split; apply joined_at_most; (assumption || now apply batches_once).
  - intros p hp. unfold batches, joined in hp. destruct p as [t b]. apply in_combine_r in hp as hb. simpl.
    apply in_map_iff in hb. destruct hb as (x & <- & hx).
    assert (below : x < fewest_batches ts).
    { rewrite <- (combine_of_maps (combine ts (colour ts))) in range.
      assert (hx' : In x (map snd (combine ts (colour ts)))).
      { clear - same hx. revert same hx. generalize (colour ts) as l. induction ts as [| t ts hts]; intros [| y l];
          simpl; intros same hx; try discriminate; [destruct hx |]. destruct hx as [<- | hx]; [auto |].
        right. apply hts; [lia | assumption]. }
      apply in_map_iff in hx'. destruct hx' as (q & <- & hq). rewrite combine_of_maps in range. now apply range. }
    unfold number, rounded_up.
    pose proof (Nat.div_mod x limit ltac:(lia)). pose proof (Nat.mod_upper_bound x limit ltac:(lia)).
    pose proof (Nat.div_mod (fewest_batches ts + limit - 1) limit ltac:(lia)).
    pose proof (Nat.mod_upper_bound (fewest_batches ts + limit - 1) limit ltac:(lia)).
    set (q := x / limit) in *. set (u := (fewest_batches ts + limit - 1) / limit) in *. nia.
  - intros others fewer length_same limits range'.
    assert (degree : fewest_batches ts <= fewer * limit).
    { apply list_max_le, Forall_forall. intros d hd. apply in_map_iff in hd. destruct hd as (t & <- & _).
      assert (bound : forall end_of, (forall b r, at_node end_of b r (combine ts others) <= limit) -> forall r,
        length (filter (fun t => end_of t =? r) ts) <= fewer * limit).
      { intros end_of few r. rewrite <- (fst_of_combine ts others length_same) at 1. rewrite <- batches_of_length.
        apply limit_times_number; [intros b; now apply batches_within |].
        intros b. rewrite <- at_node_of_batches. apply few. }
      apply Nat.max_lub; [apply (bound sender) | apply (bound receiver)]; intros b r; apply limits. }
    unfold number, rounded_up. apply Nat.lt_succ_r, Nat.div_lt_upper_bound; nia.
Qed.
