//! Answers of name servers.

use super::query::{addresses, fits};
use crate::util::fuzz;
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME},
    },
    serialize::binary::{BinDecodable as _, BinEncodable as _},
};

#[test]
fn dns_answers() {
    let [name, alias] = ["a.example.", "b.example."].map(|text| Name::from_ascii(text).unwrap());
    let mut answer = Message::new(1, MessageType::Response, OpCode::Query);
    let _query = answer.add_query(Query::query(name.clone(), RecordType::A));
    let _record =
        answer.add_answer(Record::from_rdata(name, 1, RData::CNAME(CNAME(alias.clone()))));
    let _record = answer.add_answer(Record::from_rdata(alias, 1, RData::A(A::new(10, 0, 0, 1))));
    fuzz::check("dns_answers", &[answer.to_bytes().unwrap()], |bytes| {
        let answer = Message::from_bytes(bytes).ok()?;
        let name = Name::from_ascii("a.example.").unwrap();
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        let _query = query.add_query(Query::query(name.clone(), RecordType::A));
        let _found = addresses(&answer, &name);
        fits(&answer, &query).then_some(())
    });
}
