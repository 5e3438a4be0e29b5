//! How many replicas each set should have next: numbers in, numbers out.
//!
//! The rules are those of Kubernetes' deployment controller, with one difference: it looks at the sets' reported status, this at the pods
//! themselves, which are in the same snapshot.
//!
//! Invariant: what is asked for, or still active, never exceeds `desired + surge` because of a step; what is available never falls below
//! `desired − unavailable` because of one.

/// What a rollout aims at and keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// How many replicas there should be.
    pub(super) desired: i64,
    /// How many more there may be meanwhile.
    pub(super) surge: i64,
    /// How many of them may be unavailable meanwhile.
    pub(super) unavailable: i64,
}

/// One replicaset in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Size {
    /// `spec.replicas`.
    pub(super) asked: i64,
    /// Pods that neither ended nor are asked to.
    pub(super) active: i64,
    /// Those of them that are available.
    pub(super) available: i64,
    /// `desired + surge` when it was last sized, if known.
    pub(super) most: Option<i64>,
}

impl Bounds {
    /// How many there may be in all.
    pub(super) const fn most(&self) -> i64 {
        self.desired + self.surge
    }

    /// How many must be available.
    pub(super) const fn least(&self) -> i64 {
        self.desired - self.unavailable
    }
}

impl Size {
    /// What is there or may come any moment.
    fn present(&self) -> i64 {
        self.asked.max(self.active)
    }

    /// What stays available at the size that is asked for: a set ends those first that are not.
    fn lasting(&self) -> i64 {
        self.available.min(self.asked)
    }
}

/// The next step of a rolling update: the new set's size, and the old ones' in their order, oldest first.
pub(super) fn step(bounds: &Bounds, new: &Size, old: &[Size]) -> (i64, Vec<i64>) {
    let present = new.present() + old.iter().map(Size::present).sum::<i64>();
    let room = (bounds.most() - present).max(0);
    let new_size = new.asked + (bounds.desired - new.asked).min(room);

    let mut sizes: Vec<i64> = old.iter().map(|size| size.asked).collect();
    let new_lasting = new.available.min(new_size);
    // First what is of no use anyway, however little of the new set is there yet.
    let mut spare = (sizes.iter().sum::<i64>() + new_lasting - bounds.least()).max(0);
    for (size, set) in sizes.iter_mut().zip(old) {
        let useless = (set.asked - set.lasting()).clamp(0, spare);
        *size -= useless;
        spare -= useless;
    }
    // Then what the availability of the rest allows.
    let lasting = new_lasting + sizes.iter().zip(old).map(|(size, set)| set.available.min(*size)).sum::<i64>();
    let mut spare = (lasting - bounds.least()).max(0);
    for size in &mut sizes {
        let ended = (*size).min(spare);
        *size -= ended;
        spare -= ended;
    }
    (new_size, sizes)
}

/// New sizes, oldest first, when `desired` changed in the middle of a rollout: every set keeps its share, so that a rollout that is stuck
/// does not turn its broken half into the larger one.
pub(super) fn rescale(bounds: &Bounds, sets: &[Size]) -> Vec<i64> {
    let allowed = if bounds.desired > 0 { bounds.most() } else { 0 };
    let asked: i64 = sets.iter().map(|set| set.asked).sum();
    let present: i64 = sets.iter().map(Size::present).sum();
    let missing = if allowed > asked { (allowed - present).max(0) } else { allowed - asked };
    let mut sizes: Vec<i64> = sets.iter().map(|set| set.asked).collect();
    // The largest first; among equals the newest grows and the oldest shrinks.
    let mut order: Vec<usize> = (0..sets.len()).collect();
    if missing > 0 {
        order.reverse();
    }
    order.sort_by_key(|index| std::cmp::Reverse(sizes[*index]));
    let mut left = missing;
    for index in &order {
        let set = &sets[*index];
        let before = set.most.filter(|most| *most > 0).unwrap_or_else(|| asked.max(1));
        // Rounded to the nearest, halves up.
        let share = (2 * set.asked * allowed + before) / (2 * before) - set.asked;
        let change = if missing > 0 { share.clamp(0, left) } else { share.clamp(left, 0) };
        sizes[*index] += change;
        left -= change;
    }
    // What rounding leaves over goes to the largest, as far as it can take it.
    for index in order {
        let before = sizes[index];
        sizes[index] = (before + left).max(0);
        left -= sizes[index] - before;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn size(asked: i64, available: i64) -> Size {
        Size { asked, active: asked, available, most: None }
    }

    #[test]
    fn three_replicas_are_replaced_one_by_one_as_in_kubernetes() {
        let bounds = Bounds { desired: 3, surge: 1, unavailable: 0 };
        assert_eq!(step(&bounds, &size(0, 0), &[size(3, 3)]), (1, vec![3]));
        assert_eq!(step(&bounds, &size(1, 0), &[size(3, 3)]), (1, vec![3]));
        assert_eq!(step(&bounds, &size(1, 1), &[size(3, 3)]), (1, vec![2]));
        assert_eq!(step(&bounds, &size(1, 1), &[size(2, 2)]), (2, vec![2]));
        assert_eq!(step(&bounds, &size(3, 3), &[size(1, 1)]), (3, vec![0]));
    }

    #[test]
    fn the_new_set_waits_until_pods_of_the_old_one_are_really_on_their_way_out() {
        let bounds = Bounds { desired: 3, surge: 1, unavailable: 0 };
        let old = Size { asked: 2, active: 3, available: 3, most: None };
        assert_eq!(step(&bounds, &size(1, 1), &[old]), (1, vec![2]));
    }

    #[test]
    fn unhealthy_old_pods_go_first_even_if_nothing_new_is_available() {
        let bounds = Bounds { desired: 10, surge: 0, unavailable: 2 };
        assert_eq!(step(&bounds, &size(0, 0), &[size(10, 8)]), (0, vec![8]));
        assert_eq!(step(&bounds, &size(0, 0), &[size(4, 4), size(6, 6)]), (0, vec![2, 6]), "the oldest first");
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_keeps_the_shares() {
        let sized = |asked| Size { most: Some(13), ..size(asked, asked) };
        let bounds = Bounds { desired: 15, surge: 3, unavailable: 2 };
        // The example of Kubernetes' documentation: 8 and 5 of 10 + 3 become 11 and 7 of 15 + 3.
        assert_eq!(rescale(&bounds, &[sized(8), sized(5)]), [11, 7]);
        assert_eq!(rescale(&Bounds { desired: 0, ..bounds }, &[sized(8), sized(5)]), [0, 0]);
    }

    proptest! {
        #[test]
        fn a_step_keeps_to_its_bounds(
            desired in 0..12_i64, surge in 0..4_i64, unavailable in 0..4_i64,
            sets in prop::collection::vec((0..12_i64, 0..12_i64, 0..12_i64), 1..4),
        ) {
            let bounds = Bounds { desired, surge, unavailable: unavailable.min(desired) };
            let sizes: Vec<Size> = sets
                .iter()
                .map(|(asked, active, available)| Size { asked: *asked, active: *active, available: *available.min(active), most: None })
                .collect();
            let (new, old) = sizes.split_first().unwrap();
            let (new_size, old_sizes) = step(&bounds, new, old);
            let present = |sizes: &[Size]| sizes.iter().map(Size::present).sum::<i64>();
            if new_size > new.asked {
                prop_assert!(new_size.max(new.active) + present(old) <= bounds.most());
            }
            let lasting: i64 = sizes.iter().map(Size::lasting).sum();
            let after = new.available.min(new_size) + old.iter().zip(&old_sizes).map(|(set, size)| set.available.min(*size)).sum::<i64>();
            prop_assert!(new_size < new.asked || after >= lasting.min(bounds.least()));
            prop_assert!(old_sizes.iter().zip(old).all(|(size, set)| (0..=set.asked).contains(size)));
        }

        #[test]
        fn rescaling_never_asks_for_more_than_allowed(
            desired in 0..20_i64, surge in 0..5_i64,
            sets in prop::collection::vec((1..12_i64, 1..30_i64), 2..5),
        ) {
            let bounds = Bounds { desired, surge, unavailable: 0 };
            let sizes: Vec<Size> = sets.iter().map(|(asked, most)| Size { most: Some(*most), ..size(*asked, *asked) }).collect();
            let rescaled = rescale(&bounds, &sizes);
            prop_assert!(rescaled.iter().all(|size| *size >= 0));
            prop_assert!(rescaled.iter().sum::<i64>() <= bounds.most());
        }
    }
}
