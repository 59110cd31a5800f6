//! Waiting for the answer to what was put into a channel.

use async_channel::{Receiver, Sender};
use futures_lite::FutureExt as _;

/// Waits for the answer to what was sent through `asked`; none where nobody will ever give it.
///
/// A channel whose reader is gone keeps what was sent and not read, and in it the means to answer,
/// for as long as somebody could send: whoever waits for the answer alone waits for ever.
pub async fn answered<Q, A>(asked: &Sender<Q>, answer: &Receiver<A>) -> Option<A> {
    let given = async { answer.recv().await.ok() };
    let unread = async {
        asked.closed().await;
        None
    };
    given.or(unread).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    #[test]
    fn an_answer_is_returned_though_the_reader_has_gone_since() {
        let (asked, questions) = async_channel::bounded(1);
        let (sender, answer) = async_channel::bounded(1);
        asked.try_send(sender).expect("there is room");
        let question: Sender<u8> = questions.try_recv().expect("it was sent");
        question.try_send(5).expect("there is room");
        drop((questions, question));
        assert_eq!(block_on(answered(&asked, &answer)), Some(5));
    }

    #[test]
    fn a_question_that_is_never_read_is_not_waited_for() {
        let (asked, questions) = async_channel::bounded(1);
        let (sender, answer) = async_channel::bounded::<u8>(1);
        asked.try_send(sender).expect("there is room");
        drop(questions);
        assert_eq!(block_on(answered(&asked, &answer)), None);
    }
}
