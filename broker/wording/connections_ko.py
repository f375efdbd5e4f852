"""Every word of the page of connections in Korean."""

from broker.wording.connections_en import ConfirmationWords, PageWords, StatusWords
from broker.wording.message import Message, Tone
from broker.wording.times import MomentWords

_GET_LINK = "이용하던 서비스로 돌아가서 연결 관리를 다시 열어 주세요."

KOREAN = PageWords(
    language="ko",
    site="Google 연결 관리",
    reference="문의 번호",
    skip="본문으로 건너뛰기",
    title="내 Google 연결",
    whose="{service} 사용자 {user}",
    not_you="본인이 아니라면 아무것도 바꾸지 말고 “{done}” 버튼을 눌러 주세요.",
    nothing_title="연결된 계정이 없어요",
    nothing_advice="{service} 서비스에서 Google 계정을 연결하면 여기에 표시돼요.",
    withdrawn_title="최근에 해제한 연결",
    statuses={
        "active": StatusWords("연결됨"),
        "reauthorization_required": StatusWords(
            "다시 연결 필요",
            "Google이 이 연결을 더 이상 받아들이지 않아요. 비밀번호가 바뀌었거나 Google "
            "계정에서 액세스 권한이 삭제됐을 수 있어요.",
        ),
        "pending_confirmation": StatusWords(
            "확인 대기 중",
            "{service} 서비스가 이 연결을 아직 확인하지 않았어요. 확인될 때까지는 아무도 쓸 수 "
            "없어요.",
        ),
        "revoked": StatusWords("해제됨"),
    },
    from_elsewhere="다시 연결하려면 {service} 서비스로 돌아가 주세요.",
    rights="허용한 권한",
    more_rights="{count}개 더 보기",
    connected_since="연결한 날",
    allowed_on="허용한 날",
    withdrawn_on="해제한 날",
    last_used="마지막 사용",
    used_by="{service} 서비스",
    never_used="아직 없음",
    withdraw="연결 해제",
    withdraw_named="{email} 연결 해제",
    connect_again="다시 연결",
    connect_again_named="{email} 다시 연결",
    confirmation=ConfirmationWords(
        title="연결을 해제할까요?",
        lead="{service} 서비스를 비롯해 이 Google 계정을 쓰던 모든 서비스가 더 이상 계정을 쓸 수 "
        "없어요.",
        points=(
            "액세스가 바로 끊겨요. 여기에서 이 계정을 쓰는 사람이 더 없으면 Google에도 알려요.",
            "이전에 계정에서 복사해 간 내용까지 삭제되지는 않아요.",
            "원할 때 언제든지 다시 연결할 수 있어요.",
        ),
        keep="그대로 두기",
    ),
    unconfirmed=ConfirmationWords(
        title="연결을 해제할까요?",
        lead="{service} 서비스가 요청했지만 아직 확인하지 않아서, 지금은 아무도 쓸 수 없어요.",
        points=(
            "이제 확인할 수 없게 돼요. 여기에서 이 계정을 쓰는 사람이 더 없으면 Google에도 알려요.",
            "원할 때 언제든지 다시 연결할 수 있어요.",
        ),
        keep="그대로 두기",
    ),
    done="마치기",
    done_advice="이 브라우저에서 연결 관리를 닫아요. 15분이 지나면 저절로 닫혀요.",
    back="{service} 서비스로 돌아가기",
    open_again="내 연결 보기",
    google="내 Google 계정에 액세스할 수 있는 모든 앱은 Google 계정의 다음 메뉴에서 볼 수 있어요:",
    google_link="서드 파티 앱 및 서비스",
    moments=MomentWords(
        just_now="방금",
        minutes=("{count}분 전", "{count}분 전"),
        hours=("{count}시간 전", "{count}시간 전"),
        days=("{count}일 전", "{count}일 전"),
        date="{year}년 {month} {day}일",
        months=(
            "1월", "2월", "3월", "4월", "5월", "6월",
            "7월", "8월", "9월", "10월", "11월", "12월",
        ),
    ),
    notices={
        "withdrawn": "{email} 연결을 해제했어요.",
        "already_withdrawn": "{email} 연결은 이미 해제돼 있었어요.",
        "connected": "{email} 계정을 다시 연결했어요.",
        "not_connected": "{email} 계정을 다시 연결하지 못했어요. 바뀐 것은 없어요.",
        "cannot_connect": (
            "{email} 계정은 여기에서 연결할 수 없어요. {service} 서비스에서 연결해 주세요."
        ),
    },
    nameless_notices={
        "withdrawn": "확인되지 않은 연결을 해제했어요. 아무도 쓸 수 없어요.",
        "already_withdrawn": "이미 해제된 연결이에요. 더 이상 아무도 쓸 수 없어요.",
        "cannot_connect": (
            "이 계정은 여기에서 연결할 수 없어요. {service} 서비스에서 연결해 주세요."
        ),
    },
    messages={
        "link_not_ours": Message(
            "이 링크는 쓸 수 없어요",
            "링크가 잘렸거나 도중에 바뀌었어요.",
            f"복사한 링크라면 전체를 복사했는지 확인해 주세요. {_GET_LINK}",
        ),
        "link_expired": Message(
            "링크가 만료됐어요",
            "안전을 위해 이런 링크는 몇 분 동안만 쓸 수 있어요.",
            _GET_LINK,
            Tone.CALM,
        ),
        "link_used": Message(
            "이미 열린 링크예요",
            "안전을 위해 링크마다 한 브라우저에서 한 번만 연결 관리를 열 수 있어요.",
            f"직접 열었다면 그 브라우저에서 계속해 주세요. {_GET_LINK}",
            Tone.CALM,
        ),
        "link_withdrawn": Message(
            "더 이상 쓸 수 없는 링크예요",
            "링크를 만든 서비스가 더 이상 연결 관리를 열어 줄 수 없어요.",
            _GET_LINK,
            Tone.CALM,
        ),
        "no_visit": Message(
            "알 수 없는 브라우저예요",
            "연결 관리는 이용 중인 서비스에서 받은 링크로, 쿠키를 저장하는 브라우저에서만 열려요.",
            f"이 사이트의 쿠키를 허용해 주세요. {_GET_LINK}",
            Tone.CALM,
        ),
        "visit_over": Message(
            "연결 관리가 닫혔어요",
            "안전을 위해 연결 관리는 처음 연 브라우저에서 15분 동안만 열려 있어요.",
            _GET_LINK,
            Tone.CALM,
        ),
        "form_not_ours": Message(
            "요청을 처리하지 않았어요",
            "내 연결 관리 페이지에서 보낸 요청이 아니거나, 이미 닫힌 페이지에서 보낸 "
            "요청이에요. 바뀐 것은 없어요.",
            "내 연결을 다시 열어서 한 번 더 시도해 주세요.",
        ),
        "malformed": Message(
            "요청을 읽을 수 없어요",
            "내용의 일부가 너무 길거나, 빠졌거나, 두\N{NO-BREAK SPACE}번 들어 있어요. 바뀐 것은 "
            "없어요.",
            _GET_LINK,
        ),
        "closed": Message(
            "연결 관리를 닫았어요",
            "이제 이 브라우저에서는 연결을 보거나 바꿀 수 없어요.",
            "이 페이지는 닫아도 돼요.",
            Tone.GOOD,
        ),
    },
)  # fmt: skip
