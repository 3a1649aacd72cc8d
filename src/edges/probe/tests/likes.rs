//! Several instances of one generation that take connections from one queue.

use super::*;

const LIKE: Instance = Instance { generation: Generation(2), number: 2 };

/// Waits for connections as an event loop does, and takes none.
const WAITS: &str = "
import select
queue = select.epoll()
queue.register(s, select.EPOLLIN)
print('up', flush=True)
time.sleep(1000)";

const HOLDS: &str = "print('up', flush=True)\ntime.sleep(1000)";

/// The instance that is probed, and another one that is quicker at everything.
fn beside_a_quicker_one(body: &str, quicker: &str) -> (Owned, [Server; 2]) {
    let (socket, mut owned) = slot();
    let like = Server::on(socket.try_clone().unwrap(), quicker).says("up");
    let new = Server::on(socket, body).says("up");
    owned.roots = vec![(NEW, new.pid()), (LIKE, like.pid())];
    owned.shared = true;
    (owned, [like, new])
}

#[tokio::test]
async fn one_that_waits_in_the_queue_is_ready_when_another_of_its_generation_answers() {
    let (owned, _servers) = beside_a_quicker_one(WAITS, ACCEPTS);
    owned.probed(Ready::Tcp, false).until_ready().await;
    assert!(owned.aimed.lock().unwrap().iter().sum::<usize>() <= 4, "one offer is enough");
}

#[tokio::test]
async fn one_that_only_holds_the_socket_is_not_ready_whoever_answers() {
    let (owned, [like, _new]) = beside_a_quicker_one(HOLDS, ACCEPTS);
    let mut events = owned.probed(Ready::Tcp, false);
    let who = format!("answered by process {} (python3", like.pid());
    for _ in 0..20 {
        let answer = events.no().await;
        assert!(answer.contains(&who) && answer.ends_with("of instance 2, not by instance 1"), "{answer}");
    }
    let aimed = owned.aimed.lock().unwrap();
    assert!(aimed[1..].iter().all(|offered| *offered <= 1), "an offer that others take is small: {aimed:?}");
}

/// It answers 200 itself where it gets the chance; only after eight tries the other's answer is as good.
#[tokio::test]
async fn an_answer_that_says_more_is_first_expected_of_the_instance_itself() {
    let (owned, _servers) = beside_a_quicker_one(WAITS, &format!("print('up', flush=True)\n{}", answers(200)));
    let mut events = owned.probed(Ready::Path("/health".to_owned()), false);
    for _ in 0..8 {
        let answer = events.no().await;
        assert!(answer.ends_with("of instance 2, not by instance 1"), "{answer}");
    }
    events.until_ready().await;
}

/// Nobody accepts where it is asked, so that nothing but what it is given can make it ready.
#[tokio::test]
async fn what_another_of_its_generation_was_offered_counts_once_it_has_taken_that() {
    let (_socket, mut owned) = slot();
    owned.shared = true;
    let (mut events, giver) = owned.probed_with_a_giver(Ready::Path("/health".to_owned()), false);
    let waits = events.no().await;
    assert!(waits.contains("nobody takes it out of the queue"), "{waits}");
    let (elsewhere, _) = slot();
    let connection = Connection::to_address(elsewhere.local_addr().unwrap(), DEADLINE).await.unwrap();
    let _server = Server::on(elsewhere, &answers(200));
    giver.send((0, connection)).unwrap();
    events.until_ready().await;
}
